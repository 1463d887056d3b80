//! Finds who holds a key, and tenants by name.

use std::sync::Arc;

use signalpost_core::{ApiKey, Clock, KeyHash, Tenant, TenantId};
use signalpost_store::{Store, StoreError, tenants::Holder};

use super::fresh::Fresh;

/// The longest name that a tenant can have.
const MAX_NAME: usize = 64;

/// A key that acts.
#[derive(Debug)]
pub struct KnownKey {
    /// It.
    pub key: ApiKey,
    /// In which it acts.
    pub tenant: Arc<Tenant>,
}

/// Keys and tenants as they were a moment ago.
#[derive(Debug)]
pub struct Directory {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keys: Fresh<KeyHash, Option<Arc<KnownKey>>>,
    tenants: Fresh<String, Option<Arc<Tenant>>>,
}

impl Directory {
    /// One that knows nobody yet.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let (keys, tenants) = (Fresh::new(Arc::clone(&clock)), Fresh::new(Arc::clone(&clock)));
        Self { store, clock, keys, tenants }
    }

    /// Who holds the key.
    ///
    /// # Errors
    /// The store is away.
    pub async fn key(&self, hash: KeyHash) -> Result<Option<Arc<KnownKey>>, StoreError> {
        let read = || async move {
            let holder = self.store.key_by_hash(&hash).await?;
            Ok(holder.map(|Holder { key, tenant }| Arc::new(KnownKey { key, tenant: Arc::new(tenant) })))
        };
        let found = self.keys.get(hash, read).await?;
        let now = self.clock.now();
        Ok(found.filter(|known| known.key.expires_at.is_none_or(|end| end > now)))
    }

    /// The tenant with that id or slug, unless it is being deleted.
    ///
    /// # Errors
    /// The store is away.
    pub async fn tenant(&self, name: &str) -> Result<Option<Arc<Tenant>>, StoreError> {
        if name.len() > MAX_NAME {
            return Ok(None);
        }
        let read = || async {
            let id = match name.parse::<TenantId>() {
                Ok(id) => Some(id),
                Err(_) if name == "default" => Some(TenantId::DEFAULT),
                Err(_) => self.store.tenant_by_slug(name).await?,
            };
            let Some(id) = id else { return Ok(None) };
            Ok(self.store.tenant(id).await?.map(Arc::new))
        };
        let found = self.tenants.get(name.to_owned(), read).await?;
        Ok(found.filter(|tenant| tenant.deleting.is_none()))
    }

    /// A key or a tenant was changed here: the next request sees it.
    pub fn changed(&self) {
        self.keys.changed();
        self.tenants.changed();
    }
}
