//! Entries of the audit log, as the API shows them.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;
use signalpost_core::{AuditEntry, AuditId, Timestamp};
use utoipa::ToSchema;

use crate::openapi::types::{AuditIdText, TimeText};

/// A change by a key, or the attempt at one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditBody {
    #[allow(missing_docs)]
    #[schema(value_type = AuditIdText)]
    pub id: AuditId,
    /// When it began.
    #[schema(value_type = TimeText)]
    pub created_at: Timestamp,
    /// Who: the id of a key, `operator:` and eight hex digits of its key's hash, or `registration`.
    pub actor: String,
    /// What: `destination.update`.
    pub action: String,
    /// The id that it is about; null where it has none.
    pub target: Option<String>,
    /// From where; null where that is not known.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The request's id, as in the logs.
    pub request_id: String,
    /// The HTTP status that was answered; null: it is under way, or its process died, so that it may or may not have happened.
    pub status: Option<u16>,
    /// How it was, without secrets; null where that is not kept.
    pub before: Option<Value>,
    /// How it is now, without secrets; null where that is not kept.
    pub after: Option<Value>,
}

impl From<AuditEntry> for AuditBody {
    fn from(entry: AuditEntry) -> Self {
        let (status, after) = entry.outcome.map_or((None, None), |outcome| (Some(outcome.status), outcome.after));
        Self {
            id: entry.id,
            created_at: entry.id.created_at(),
            actor: entry.actor,
            action: entry.action,
            target: Some(entry.target).filter(|target| !target.is_empty()),
            address: entry.address,
            request_id: entry.request_id,
            status,
            before: entry.before,
            after,
        }
    }
}
