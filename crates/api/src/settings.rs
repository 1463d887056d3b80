//! What an operator may set about the API.

use std::{num::NonZeroU32, time::Duration};

use ipnet::IpNet;
use signalpost_core::Secret;
use signalpost_telemetry::{Access, Metrics};

use crate::manage::ManageSettings;

/// How the API works. `Default` has no key: nobody may do anything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's keys, newest first.
    pub operator_keys: Vec<Secret>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether strangers may create a tenant, and how often from one address.
    pub open_registrations_per_hour: Option<NonZeroU32>,
    /// The largest event, as it is posted. `SIGNALPOST_MAX_EVENT_BYTES`.
    pub max_event_bytes: usize,
    /// The most bytes of bodies that are held at once, of all requests together; further ones get 503.
    pub body_bytes: usize,
    /// How long idempotency keys and uids are kept.
    pub idempotency_ttl: Duration,
    /// Above so many destinations an event is committed with a fan-out cursor instead of deliveries.
    pub fan_out_above: usize,
    /// How groups are committed.
    pub ingest: IngestSettings,
    /// The management half.
    pub manage: ManageSettings,
    /// `/health/*` and `/metrics` on the API's own listener; none: somebody else serves them.
    pub operations: Option<OperationsSettings>,
}

/// `/health/*` and `/metrics` on the API's own listener.
#[derive(Debug, Clone)]
pub struct OperationsSettings {
    /// The process's recorder.
    pub metrics: Metrics,
    /// Who sees details.
    pub access: Access,
}

/// The bounds of a group and of what waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestSettings {
    /// The most deliveries in one transaction.
    pub group_deliveries: usize,
    /// The most bytes of `data` in one transaction; a larger unit stands alone.
    pub group_bytes: usize,
    /// The most requests that wait; further ones get 503.
    pub queue_requests: usize,
    /// The most bytes that wait; further ones get 503.
    pub queue_bytes: usize,
    /// The most groups that wait to be published; those beyond are left to the relay.
    pub publish_groups: usize,
}

/// The largest batch.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The most events in a batch.
pub const MAX_BATCH_EVENTS: usize = 1000;

/// The largest body of a management request.
pub const MAX_MANAGE_BYTES: usize = 256 * 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            operator_keys: Vec::new(),
            trusted_proxies: Vec::new(),
            open_registrations_per_hour: None,
            max_event_bytes: 1024 * 1024,
            body_bytes: 256 * 1024 * 1024,
            idempotency_ttl: Duration::from_secs(24 * 60 * 60),
            fan_out_above: 1000,
            ingest: IngestSettings::default(),
            manage: ManageSettings::default(),
            operations: None,
        }
    }
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            group_deliveries: 5000,
            group_bytes: 8 * 1024 * 1024,
            queue_requests: 16_384,
            queue_bytes: 128 * 1024 * 1024,
            publish_groups: 256,
        }
    }
}
