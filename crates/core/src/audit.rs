//! Who changed what.

use std::net::IpAddr;

use serde_json::Value;

use crate::{AuditId, TenantId};

/// One change by a key, or the attempt at one. When: the id's millisecond.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// In which tenant.
    pub tenant_id: TenantId,
    /// Who: `key_…`, `operator:` and eight hex digits of the key's hash, or `registration`.
    pub actor: String,
    /// What: `destination.update`.
    pub action: String,
    /// The id that it is about; empty where it has none yet.
    pub target: String,
    /// From where.
    pub address: Option<IpAddr>,
    /// The request's id, as in the logs.
    pub request_id: String,
    /// How it was, without secrets.
    pub before: Option<Value>,
    /// What came of it. None: it is under way, or the process died on the way, so that it may or may not have happened.
    pub outcome: Option<AuditOutcome>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditOutcome {
    /// The HTTP status that was answered.
    pub status: u16,
    /// How it is now, without secrets.
    pub after: Option<Value>,
}
