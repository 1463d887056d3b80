//! Isolated customers and environments.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    TenantId, Timestamp,
    secret::Sealed,
    signature::{HmacScheme, SignatureScheme},
};

/// A tenant as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name in headers and links; unique.
    pub slug: String,
    /// What the operator set.
    pub spec: TenantSpec,
    /// The secret of `spec.ingest_signature`, encrypted.
    pub ingest_secret: Option<Sealed>,
    /// Grows by one with each change.
    pub version: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// It is being deleted.
    pub deleting: Option<Deleting>,
}

/// How far the deletion of a tenant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleting {
    /// Since when.
    pub since: Timestamp,
    /// Rows removed so far.
    pub rows: u64,
}

/// What an operator sets of a tenant. Serialised into stores; grows by fields with a default only.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantSpec {
    /// For people.
    pub name: String,
    /// What it may use up.
    pub quotas: Quotas,
    /// Settings of new destinations that name none of their own, as in a create. Holds no secrets.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub destination_defaults: Map<String, Value>,
    /// How its producers must sign events. None: they need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_signature: Option<IngestSignature>,
}

/// What a tenant may use up. None: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Events accepted per second, by each api process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<NonZeroU32>,
    /// Events at once; absent: as many as per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_burst: Option<NonZeroU32>,
    /// Destinations that are there at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<u32>,
    /// Bytes of one event's `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_bytes: Option<NonZeroU32>,
}

/// How producers sign: [`SignatureScheme`] without the asymmetric one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum IngestSignature {
    /// As a receiver of Standard Webhooks checks it.
    Standard,
    /// HMAC-SHA256 of the body in a header.
    Hmac(HmacScheme),
}

impl From<IngestSignature> for SignatureScheme {
    fn from(signature: IngestSignature) -> Self {
        match signature {
            IngestSignature::Standard => Self::Standard,
            IngestSignature::Hmac(scheme) => Self::Hmac(scheme),
        }
    }
}
