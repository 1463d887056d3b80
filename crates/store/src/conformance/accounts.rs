//! What cases about tenants and keys are made of.

use signalpost_core::{
    ApiKey, AuditEntry, AuditId, KeyHash, KeyId, Scope, Scopes, Sealed, Tenant, TenantId, TenantSpec, Timestamp,
    tenant::Quotas,
};

use super::world::World;
use crate::{
    read::Page,
    tenants::{NewTenant, TenantCreated},
};

/// One page of all.
pub(super) fn all<K>() -> Page<K> {
    Page { limit: 250, after: None, descending: false }
}

/// Something sealed with a key of that name.
pub(super) fn sealed(key: &str, text: &str) -> Sealed {
    let length = u8::try_from(key.len()).unwrap();
    Sealed::new([&[1, length], key.as_bytes(), text.as_bytes()].concat().into())
}

/// A specification with something in each part.
pub(super) fn tenant_spec(name: &str) -> TenantSpec {
    TenantSpec {
        name: name.to_owned(),
        quotas: Quotas { destinations: Some(7), ..Quotas::default() },
        destination_defaults: serde_json::from_str(r#"{"timeout_ms": 3000}"#).unwrap(),
        ingest_signature: None,
    }
}

impl World {
    /// A tenant that is not stored yet.
    pub(super) async fn new_tenant(&self, slug: &str) -> Tenant {
        let now = self.now().await;
        Tenant {
            id: TenantId::new(now, self.entropy()),
            slug: slug.to_owned(),
            spec: tenant_spec(slug),
            ingest_secret: None,
            version: 1,
            created_at: now,
            updated_at: now,
            deleting: None,
        }
    }

    /// A key that is not stored yet. Its hash is of its id.
    pub(super) async fn new_key(&self, tenant: TenantId) -> ApiKey {
        let now = self.now().await;
        let id = KeyId::new(now, self.entropy());
        ApiKey {
            id,
            tenant_id: tenant,
            hash: KeyHash::of(id.uuid().as_bytes()),
            hint: "sp_01234567".to_owned(),
            name: "Ü key".to_owned(),
            scopes: [Scope::EventsWrite, Scope::AuditRead].into_iter().collect::<Scopes>(),
            created_at: now,
            expires_at: None,
            last_used_at: None,
        }
    }

    /// Stores a tenant with a key.
    pub(super) async fn open(&self, slug: &str) -> (Tenant, ApiKey) {
        let tenant = self.new_tenant(slug).await;
        let key = self.new_key(tenant.id).await;
        let new = NewTenant { tenant: &tenant, key: &key, destination: None };
        assert_eq!(self.store.create_tenant(new).await.unwrap(), TenantCreated::Yes);
        self.met(tenant.id);
        (self.store.tenant(tenant.id).await.unwrap().unwrap(), key)
    }

    /// An entry that is not stored yet, of that time.
    pub(super) fn new_entry(&self, tenant: TenantId, at: Timestamp) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(at, self.entropy()),
            tenant_id: tenant,
            actor: "operator:0123abcd".to_owned(),
            action: "destination.create".to_owned(),
            target: String::new(),
            address: Some([192, 0, 2, 7].into()),
            request_id: "req-1".to_owned(),
            before: None,
            outcome: None,
        }
    }
}
