//! Keys of tenants, as the API shows them and as they are asked for.

use serde::Serialize;
use signalpost_core::{ApiKey, KeyId, Scope, Secret, Timestamp};
use utoipa::ToSchema;

use crate::openapi::types::{KeyIdText, ScopeText, TimeText};

/// A key of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyBody {
    #[allow(missing_docs)]
    #[schema(value_type = KeyIdText)]
    pub id: KeyId,
    /// For people.
    pub name: String,
    /// How its text begins.
    pub hint: String,
    /// What it may do.
    #[schema(value_type = Vec<ScopeText>)]
    pub scopes: Vec<Scope>,
    #[allow(missing_docs)]
    #[schema(value_type = TimeText)]
    pub created_at: Timestamp,
    /// From then on it does nothing; null: it does not end.
    #[schema(value_type = Option<TimeText>)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute or so; null: never.
    #[schema(value_type = Option<TimeText>)]
    pub last_used_at: Option<Timestamp>,
    /// The key itself: in the answer to the request that created it, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^sp_[0-9a-hjkmnp-tv-z]{52}$")]
    pub key: Option<String>,
}

impl KeyBody {
    /// As everybody may see it.
    pub fn new(key: &ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name.clone(),
            hint: key.hint.clone(),
            scopes: key.scopes.iter().collect(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            key: None,
        }
    }

    /// As the one sees it who creates it.
    pub fn with_text(key: &ApiKey, text: &Secret) -> Self {
        Self { key: Some(text.reveal().to_owned()), ..Self::new(key) }
    }
}

/// A key that is to be created.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyInput {
    /// For people.
    #[schema(min_length = 1, max_length = 256)]
    pub name: String,
    /// What it may do.
    #[schema(value_type = Vec<ScopeText>, min_items = 1, max_items = 6)]
    pub scopes: Vec<Scope>,
    /// From then on it does nothing. Default: it does not end.
    #[schema(value_type = Option<TimeText>)]
    pub expires_at: Option<String>,
}
