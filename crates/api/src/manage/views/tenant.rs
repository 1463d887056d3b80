//! Tenants, as the API shows them, and the shape of what is said of them; [`crate::manage::tenant`] reads that.

use serde::Serialize;
use serde_json::{Map, Value};
use signalpost_core::{Tenant, TenantId, Timestamp, tenant::Quotas};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::destination::{DestinationBody, DestinationInput};
use crate::{
    manage::tenant,
    openapi::types::{SlugText, TenantIdText, TimeText},
};

/// An isolated customer or environment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantBody {
    #[allow(missing_docs)]
    #[schema(value_type = TenantIdText)]
    pub id: TenantId,
    /// Its name in headers and links.
    #[schema(value_type = SlugText)]
    pub slug: String,
    /// For people.
    pub name: String,
    /// What it may use up.
    pub quotas: QuotasBody,
    /// What its new destinations have where their owner says nothing.
    #[schema(value_type = Object)]
    pub destination_defaults: Map<String, Value>,
    /// How its producers must sign events; null: they need not. The secret is shown as `***`.
    #[schema(value_type = Option<IngestSignatureBody>)]
    pub ingest_signature: Option<Value>,
    /// How far its deletion is; null: it is not being deleted.
    pub deleting: Option<DeletingBody>,
    #[allow(missing_docs)]
    #[schema(value_type = TimeText)]
    pub created_at: Timestamp,
    #[allow(missing_docs)]
    #[schema(value_type = TimeText)]
    pub updated_at: Timestamp,
}

impl From<&Tenant> for TenantBody {
    fn from(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id,
            slug: tenant.slug.clone(),
            name: tenant.spec.name.clone(),
            quotas: tenant.spec.quotas.into(),
            destination_defaults: tenant.spec.destination_defaults.clone(),
            ingest_signature: tenant::document(tenant).remove("ingest_signature"),
            deleting: tenant.deleting.map(|deleting| DeletingBody { since: deleting.since, rows: deleting.rows }),
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}

/// What a tenant may use up; null: no bound.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Quotas)]
pub struct QuotasBody {
    /// Events accepted per second, by each api process.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub events_per_second: Option<u32>,
    /// Events at once. Default: as many as per second.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub events_burst: Option<u32>,
    /// Destinations at a time.
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub destinations: Option<u32>,
    /// Bytes of one event's data.
    #[schema(minimum = 1, maximum = 16_777_216)]
    pub event_bytes: Option<u32>,
}

impl From<Quotas> for QuotasBody {
    fn from(quotas: Quotas) -> Self {
        Self {
            events_per_second: quotas.events_per_second.map(Into::into),
            events_burst: quotas.events_burst.map(Into::into),
            destinations: quotas.destinations,
            event_bytes: quotas.event_bytes.map(Into::into),
        }
    }
}

/// How producers must sign events.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IngestSignature)]
pub struct IngestSignatureBody {
    /// `standard`: as a receiver of Standard Webhooks checks it; `hmac`: HMAC-SHA256 of the body in a header.
    pub scheme: IngestSchemeName,
    /// `hmac`: the header.
    #[schema(max_length = 128, example = "X-HMAC-Signature")]
    pub header: Option<String>,
    /// `hmac`: stands before the digest. Default: nothing.
    #[schema(max_length = 64, example = "sha256=")]
    pub prefix: Option<String>,
    /// `hmac`: how the digest is written. Default: `hex`.
    pub encoding: Option<DigestEncodingName>,
    /// `hmac`: what is signed. Default: `raw`, the bytes of the body; `sorted_keys`: as Python's `json.dumps(sort_keys=True)`
    /// writes it.
    pub canonical: Option<CanonicalName>,
    /// `standard`: `whsec_…`; `hmac`: 1 to 256 characters. Never shown: `***` stands for it, and keeps it where it is written.
    #[schema(min_length = 1, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub secret: String,
}

/// How events are signed.
#[derive(Debug, ToSchema)]
#[schema(as = IngestScheme, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum IngestSchemeName {
    Standard,
    Hmac,
}

/// How a digest is written.
#[derive(Debug, ToSchema)]
#[schema(as = IngestEncoding, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DigestEncodingName {
    Hex,
    Base64,
}

/// What is signed.
#[derive(Debug, ToSchema)]
#[schema(as = IngestCanonical, rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum CanonicalName {
    Raw,
    SortedKeys,
}

/// How far the deletion of a tenant is. When all of it is gone, so is the tenant: 404.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deleting)]
pub struct DeletingBody {
    /// When it began.
    #[schema(value_type = TimeText)]
    pub since: Timestamp,
    /// Rows removed so far.
    pub rows: u64,
}

/// A tenant that was created, with its first key, which is shown here only.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantCreated)]
pub struct TenantCreatedBody {
    #[allow(missing_docs)]
    pub tenant: TenantBody,
    /// A key with all scopes.
    #[schema(pattern = "^sp_[0-9a-hjkmnp-tv-z]{52}$")]
    pub key: String,
    /// Its first destination, with its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub destination: Option<DestinationBody>,
}

/// A tenant that is to be created. Who has no key gives the `name` and perhaps a `destination`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantInput {
    /// For people.
    #[schema(min_length = 1, max_length = 256)]
    pub name: String,
    /// Made where it is absent; cannot be changed.
    #[schema(value_type = Option<SlugText>)]
    pub slug: Option<String>,
    /// Default: no bounds.
    pub quotas: Option<QuotasBody>,
    /// What its new destinations have where their owner says nothing: fields as at their creation, but for `url`, `uid` and what is
    /// secret. Default: the operator's settings.
    #[schema(value_type = Option<Object>)]
    pub destination_defaults: Option<Map<String, Value>>,
    /// How its producers must sign events. Default: they need not.
    pub ingest_signature: Option<IngestSignatureBody>,
    /// A first destination, created with it or not at all.
    pub destination: Option<DestinationInput>,
}

/// A change of a tenant (RFC 7396): the same fields as at creation but `slug` and `destination`, none required.
#[derive(Debug)]
pub enum TenantPatch {}

impl PartialSchema for TenantPatch {
    fn schema() -> RefOr<Schema> {
        let mut schema = TenantInput::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required.clear();
            object.properties.remove("slug");
            object.properties.remove("destination");
            object.description =
                Some("RFC 7396: absent is unchanged, null is the default. Objects are replaced whole.".to_owned());
        }
        schema
    }
}

impl ToSchema for TenantPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        <TenantInput as ToSchema>::schemas(schemas);
    }
}
