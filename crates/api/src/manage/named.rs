//! What a path, a filter or a body names: by our id, or, where it has one, by its owner's `uid`. A `uid` is never shaped like
//! an id, so a name means one thing.

use std::future::Future;

use serde_json::{Value, json};
use signalpost_core::{DeliveryId, Destination, DestinationId, EventId, ReplayId, Tenant, TenantId};
use signalpost_store::{
    manage::ReplayJob,
    read::{DeadLetter, DeliveryView},
};

use super::views::{destination::DestinationBody, replay::ReplayBody, tenant::TenantBody};
use crate::{events::rules, problem::Problem, state::AppState};

/// Something that a path can name.
pub trait Named: Sized + Send {
    /// What people call it.
    const KIND: &'static str;

    /// Its id.
    fn id(&self) -> String;

    /// How it is, without secrets; what the audit log keeps of it before a change. Null where that says little.
    fn shown(&self) -> Value {
        Value::Null
    }

    /// Looks for it.
    fn look(
        state: &AppState,
        tenant: TenantId,
        name: &str,
    ) -> impl Future<Output = Result<Option<Self>, Problem>> + Send;

    /// The one with this name.
    ///
    /// # Errors
    /// 404; the store is away.
    fn find(state: &AppState, tenant: TenantId, name: &str) -> impl Future<Output = Result<Self, Problem>> + Send {
        async move { Self::look(state, tenant, name).await?.ok_or_else(|| Problem::not_found(Self::KIND)) }
    }
}

impl Named for DeliveryView {
    const KIND: &'static str = "delivery";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn shown(&self) -> Value {
        json!({"status": self.state.status(self.attempts), "attempts": self.attempts})
    }

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let Ok(id) = name.parse::<DeliveryId>() else { return Ok(None) };
        Ok(state.ports.store.delivery(tenant, id).await?)
    }
}

impl Named for DeadLetter {
    const KIND: &'static str = "dead letter";

    fn id(&self) -> String {
        self.delivery_id.to_string()
    }

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let Ok(id) = name.parse::<DeliveryId>() else { return Ok(None) };
        Ok(state.ports.store.dead_letter(tenant, id).await?)
    }
}

impl Named for ReplayJob {
    const KIND: &'static str = "replay";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn shown(&self) -> Value {
        serde_json::to_value(ReplayBody::from(self)).unwrap_or_default()
    }

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let Ok(id) = name.parse::<ReplayId>() else { return Ok(None) };
        Ok(state.ports.store.replay(tenant, id).await?)
    }
}

impl Named for Destination {
    const KIND: &'static str = "destination";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn shown(&self) -> Value {
        serde_json::to_value(DestinationBody::new(self)).unwrap_or_default()
    }

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let store = &state.ports.store;
        Ok(match name.parse::<DestinationId>() {
            Ok(id) => store.destination(tenant, id).await?,
            Err(_) if rules::uid(name).is_err() => None,
            Err(_) => store.destination_by_uid(tenant, name).await?,
        })
    }
}

/// A tenant, for an operator; in which one it acts does not matter.
impl Named for Tenant {
    const KIND: &'static str = "tenant";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn shown(&self) -> Value {
        serde_json::to_value(TenantBody::from(self)).unwrap_or_default()
    }

    async fn look(state: &AppState, _acts_in: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let store = &state.ports.store;
        let id = match name.parse() {
            Ok(id) => Some(id),
            Err(_) if rules::uid(name).is_err() => None,
            Err(_) => store.tenant_by_slug(name).await?,
        };
        let Some(id) = id else { return Ok(None) };
        Ok(store.tenant(id).await?)
    }
}

/// An event, by its id or by its producer's; the newest of those.
impl Named for EventId {
    const KIND: &'static str = "event";

    fn id(&self) -> String {
        self.to_string()
    }

    async fn look(state: &AppState, tenant: TenantId, name: &str) -> Result<Option<Self>, Problem> {
        let store = &state.ports.store;
        Ok(match name.parse::<EventId>() {
            Ok(id) => store.event(tenant, id).await?.map(|_| id),
            Err(_) if rules::uid(name).is_err() => None,
            Err(_) => store.event_by_uid(tenant, name).await?,
        })
    }
}
