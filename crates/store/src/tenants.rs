//! Tenants, their keys, the audit log, and what is encrypted.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use signalpost_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, Destination, DestinationId, Kept, KeyHash, KeyId, Sealed, Tenant,
    TenantId, TenantSpec, Timestamp,
};

use crate::{StoreError, read::Page};

/// How long after the beginning of its deletion a tenant is still there: processes remember for about a second that it is not being deleted,
/// and what they write until then must be found and removed.
pub const LATE: Duration = Duration::from_secs(60);

/// Isolated customers: who they are, who acts for them, and who did.
#[async_trait]
pub trait TenantStore: Debug + Send + Sync + 'static {
    /// Who holds the key. None where it is unknown, revoked or expired (by the store's clock), or its tenant is being deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<Holder>, StoreError>;

    /// A tenant, also one that is being deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn tenant(&self, id: TenantId) -> Result<Option<Tenant>, StoreError>;

    /// Tenants, also those that are being deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn list_tenants(&self, page: Page<TenantId>) -> Result<Vec<Tenant>, StoreError>;

    /// Creates a tenant with a first key, and a first destination where given, in one transaction. The same again (by its id)
    /// is `Yes` and changes nothing. A tenant that is being deleted keeps its slug until nothing of it is left.
    ///
    /// # Errors
    /// The store is away.
    async fn create_tenant(&self, new: NewTenant<'_>) -> Result<TenantCreated, StoreError>;

    /// Replaces what the operator set, and the secret of its producers, on condition that the version is still
    /// `expected_version`. None where it is not, or where there is no such tenant that is not being deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn update_tenant(
        &self,
        id: TenantId,
        expected_version: u32,
        spec: &TenantSpec,
        ingest_secret: Option<&Sealed>,
    ) -> Result<Option<Tenant>, StoreError>;

    /// Begins to delete a tenant: from now on no key of it acts, it takes no events and no new destinations, and its destinations
    /// are deleted as by [`crate::ManageStore::delete_destination`]. [`crate::ScheduleStore::sweep_tenants`] removes what is
    /// theirs. False where there is no such tenant, or it is [`TenantId::DEFAULT`]; true also where it is being deleted already.
    /// More than one transaction: where it ends early, the sweep deletes the destinations.
    ///
    /// # Errors
    /// The store is away.
    async fn delete_tenant(&self, id: TenantId) -> Result<bool, StoreError>;

    /// Adds a key. False where there is no such tenant that is not being deleted. The same again (by its id) changes nothing.
    ///
    /// # Errors
    /// The store is away.
    async fn create_key(&self, tenant: TenantId, key: &ApiKey) -> Result<bool, StoreError>;

    /// The keys of a tenant, also those that have expired.
    ///
    /// # Errors
    /// The store is away.
    async fn list_keys(&self, tenant: TenantId, page: Page<KeyId>) -> Result<Vec<ApiKey>, StoreError>;

    /// Removes a key. False where there is none.
    ///
    /// # Errors
    /// The store is away.
    async fn revoke_key(&self, tenant: TenantId, id: KeyId) -> Result<bool, StoreError>;

    /// Notes when keys were last used: one statement for all of them. A time never moves back.
    ///
    /// # Errors
    /// The store is away.
    async fn touch_keys(&self, used: &[(KeyId, Timestamp)]) -> Result<(), StoreError>;

    /// How many destinations a tenant has that are not deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn count_destinations(&self, tenant: TenantId) -> Result<u64, StoreError>;

    /// Keeps an entry of the audit log, before the change that it tells of. The same again (by its id) changes nothing.
    ///
    /// # Errors
    /// The store is away.
    async fn begin_audit(&self, entry: &AuditEntry) -> Result<(), StoreError>;

    /// Adds to an entry what came of it, and what it is about where that was not known before (`target`).
    ///
    /// # Errors
    /// The store is away.
    async fn end_audit(
        &self,
        tenant: TenantId,
        id: AuditId,
        target: Option<&str>,
        outcome: &AuditOutcome,
    ) -> Result<(), StoreError>;

    /// Entries of the audit log.
    ///
    /// # Errors
    /// The store is away.
    async fn list_audit(
        &self,
        tenant: TenantId,
        filter: &AuditFilter,
        page: Page<AuditId>,
    ) -> Result<Vec<AuditEntry>, StoreError>;

    /// Whether secrets are encrypted when they are written. Not until [`Self::mark_sealed`] where the database is from before,
    /// as processes of that version cannot read encrypted ones.
    ///
    /// # Errors
    /// The store is away.
    async fn is_sealed(&self) -> Result<bool, StoreError>;

    /// From now on secrets are encrypted when they are written: all processes can read them.
    ///
    /// # Errors
    /// The store is away.
    async fn mark_sealed(&self) -> Result<(), StoreError>;

    /// What is not sealed with the key `newest` (also what is not sealed), by row, after `after`; also of destinations and tenants
    /// that are deleted and not yet removed.
    ///
    /// # Errors
    /// The store is away.
    async fn unsealed(
        &self,
        newest: &str,
        after: Option<SealedRow>,
        most: usize,
    ) -> Result<Vec<(SealedRow, TenantId, Kept)>, StoreError>;

    /// How many rows [`Self::unsealed`] would give.
    ///
    /// # Errors
    /// The store is away.
    async fn count_unsealed(&self, newest: &str) -> Result<u64, StoreError>;

    /// Replaces what a row keeps, where that is still `old`. No change of the destination or tenant: versions do not move.
    ///
    /// # Errors
    /// The store is away.
    async fn reseal(&self, row: SealedRow, old: &Kept, new: &Sealed) -> Result<bool, StoreError>;

    /// The ids of the keys that something is sealed with.
    ///
    /// # Errors
    /// The store is away.
    async fn sealing_keys(&self) -> Result<Vec<String>, StoreError>;
}

/// Who holds a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// It.
    pub key: ApiKey,
    /// In which it acts.
    pub tenant: Tenant,
}

/// A tenant that is to be created.
#[derive(Debug, Clone, Copy)]
pub struct NewTenant<'a> {
    /// It.
    pub tenant: &'a Tenant,
    /// Its first key.
    pub key: &'a ApiKey,
    /// Its first destination.
    pub destination: Option<&'a Destination>,
}

/// What came of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantCreated {
    /// All of it is there.
    Yes,
    /// Another tenant has that slug.
    SlugTaken,
}

/// A row that keeps something sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedRow {
    /// The secrets of a destination.
    Destination(DestinationId),
    /// The secret of a tenant's producers.
    Ingest(TenantId),
}

/// Which entries of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Of this actor.
    pub actor: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}
