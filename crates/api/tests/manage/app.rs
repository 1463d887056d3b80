//! The API on SQLite, the in-process bus and the in-process limits. No dispatcher: tests say what comes of a delivery.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use signalpost_api::{Api, Ports, Settings};
use signalpost_bus_local::{Capacity, LocalBus};
use signalpost_core::{
    AttemptOutcome, Clock, DeadReason, DeliveryId, DestinationId, Entropy, Event, EventId, EventMeta, Guarantee,
    OutboxId, Secret, TenantId, Timestamp,
};
use signalpost_limits::{Limits, local::LocalLimits};
use signalpost_runtime::{Shutdown, SystemClock, SystemEntropy};
use signalpost_sender::{EgressPolicy, Sender, SenderSettings};
use signalpost_store::{
    DispatchStore as _, IngestStore as _, ReadStore as _, Store,
    dispatch::{Attempt, DeliveryWrite, Next, Target, Written},
    ingest::{IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
};
use signalpost_store_sqlite::SqliteStore;
use signalpost_vault::KeyRing;
use tower::ServiceExt as _;

/// The operator's key of these tests.
pub const KEY: &str = "operator-key-of-tests";

/// An API and what stands behind it.
pub struct App {
    pub router: Router,
    pub store: SqliteStore,
    pub bus: LocalBus,
    pub limits: Arc<LocalLimits>,
    pub clock: Arc<SystemClock>,
    shutdown: Shutdown,
    pub api: Api,
    ports: Ports,
    folder: tempfile::TempDir,
}

/// An answer, its body read.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    /// Null where the body is no JSON.
    pub body: Value,
}

impl Reply {
    /// Asserts the status and gives the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// Asserts that it is a problem with this status and code, and gives the pointers of its errors.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Vec<String> {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert_eq!(self.body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        assert!(self.body["title"].is_string() && self.body["detail"].is_string());
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }

    /// A header as text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl App {
    /// A fresh one that may send to the loopback interface.
    pub fn start() -> Self {
        Self::start_with(Settings::default(), |store| Arc::new(store))
    }

    /// A fresh one with these settings, on what `wrap` makes of its store.
    pub fn start_with(settings: Settings, wrap: impl FnOnce(SqliteStore) -> Arc<dyn Store>) -> Self {
        Self::start_on(settings, wrap, None)
    }

    /// The same, with other limits than its own.
    pub fn start_on(
        settings: Settings,
        wrap: impl FnOnce(SqliteStore) -> Arc<dyn Store>,
        other_limits: Option<Arc<dyn Limits>>,
    ) -> Self {
        let egress = EgressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..EgressPolicy::public_only() };
        Self::start_behind(egress, settings, wrap, other_limits)
    }

    /// The same, and its deliveries may reach what `egress` says.
    pub fn start_behind(
        egress: EgressPolicy,
        settings: Settings,
        wrap: impl FnOnce(SqliteStore) -> Arc<dyn Store>,
        other_limits: Option<Arc<dyn Limits>>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock::new());
        let as_clock: Arc<dyn Clock> = clock.clone();
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let store = SqliteStore::open(folder.path(), Arc::clone(&as_clock), Arc::clone(&entropy)).unwrap();
        let limits = Arc::new(LocalLimits::new(Arc::clone(&as_clock)));
        // Always the same: one app may open what another one has sealed.
        let vault = Arc::new(KeyRing::parse("test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap());
        let settings_of_sender = SenderSettings::new(egress, Arc::clone(&as_clock), Arc::clone(&entropy), vault);
        let sender = Sender::new(settings_of_sender).unwrap();
        let bus = LocalBus::new(&*clock, Capacity::default());
        let ports = Ports {
            store: wrap(store.clone()),
            bus: Arc::new(bus.clone()),
            limits: other_limits.unwrap_or_else(|| limits.clone()),
            sender: Arc::new(sender),
            clock: as_clock,
            entropy,
        };
        let settings = Settings { operator_keys: vec![Secret::new(KEY)], ..settings };
        let shutdown = Shutdown::new();
        let api = Api::start(ports.clone(), settings, shutdown.clone());
        Self { router: api.router(), store, bus, limits, clock, shutdown, api, ports, folder }
    }

    /// Another API process on the same store, with a clock of its own.
    pub fn beside(&self, settings: Settings, clock: Arc<dyn Clock>) -> Api {
        let settings = Settings { operator_keys: vec![Secret::new(KEY)], ..settings };
        Api::start(Ports { clock, ..self.ports.clone() }, settings, self.shutdown.clone())
    }

    /// All bytes of the database.
    pub fn database(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Any request, as it is.
    pub async fn raw(&self, request: Request<Body>) -> Reply {
        answer(self.router.clone(), request).await
    }

    /// A request with the operator's key and these headers.
    pub async fn with(&self, method: Method, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let mut request = Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {KEY}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.raw(request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, uri: &str) -> Reply {
        self.with(Method::GET, uri, &[], Body::empty()).await
    }

    pub async fn delete(&self, uri: &str) -> Reply {
        self.with(Method::DELETE, uri, &[], Body::empty()).await
    }

    pub async fn json(&self, method: Method, uri: &str, body: &Value) -> Reply {
        self.with(method, uri, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn post(&self, uri: &str, body: Value) -> Reply {
        self.json(Method::POST, uri, &body).await
    }

    pub async fn put(&self, uri: &str, body: Value) -> Reply {
        self.json(Method::PUT, uri, &body).await
    }

    pub async fn patch(&self, uri: &str, body: Value) -> Reply {
        self.json(Method::PATCH, uri, &body).await
    }

    /// A POST with an empty body and no content type.
    pub async fn act(&self, uri: &str) -> Reply {
        self.with(Method::POST, uri, &[], Body::empty()).await
    }

    /// A POST with a key.
    pub async fn keyed(&self, uri: &str, key: &str, body: &Value) -> Reply {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        self.with(Method::POST, uri, &headers, body.to_string()).await
    }

    /// Another tenant, with the slug `other`. Tenants have no routes yet, so this writes to the database.
    pub fn other_tenant(&self) -> TenantId {
        let id = TenantId::new(self.clock.now(), &SystemEntropy);
        let database = rusqlite::Connection::open(self.folder.path().join("signalpost.db")).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        let sql = "INSERT INTO tenants (id, slug, name, created_at) VALUES (?1, 'other', 'Other', 0)";
        database.execute(sql, [id.uuid().as_bytes().as_slice()]).unwrap();
        id
    }

    /// A new destination; its id.
    pub async fn destination(&self, mut body: Value) -> String {
        if body["url"].is_null() {
            body["url"] = Value::from("http://127.0.0.1:9999/hook");
        }
        let created = self.post("/v1/destinations", body).await.expect(201);
        created["id"].as_str().unwrap().to_owned()
    }

    /// A new event with one delivery to each of these destinations, accepted at that moment; the deliveries' ids.
    pub async fn event_at(
        &self,
        at: Timestamp,
        tenant: TenantId,
        meta: EventMeta,
        uid: Option<&str>,
        destinations: &[&str],
    ) -> (String, Vec<String>) {
        let event = Event {
            id: EventId::new(at, &SystemEntropy),
            tenant_id: tenant,
            event_type: "order.created".to_owned(),
            uid: uid.map(str::to_owned),
            source: None,
            meta,
            data: Bytes::from_static(br#"{"n": 1.0}"#),
        };
        let id = event.id;
        let deliveries: Vec<NewDelivery> = destinations
            .iter()
            .map(|destination| NewDelivery {
                id: DeliveryId::new(at, &SystemEntropy),
                destination_id: destination.parse().unwrap(),
                start: Start::Queued,
                lane: None,
                guarantee: Guarantee::AtLeastOnce,
            })
            .collect();
        let ids = deliveries.iter().map(|delivery| delivery.id.to_string()).collect();
        let event = NewEvent {
            event: Arc::new(event),
            deliveries,
            fan_out: Vec::new(),
            uid: None,
            answer: Bytes::from_static(b"{}"),
        };
        let routing_version = self.store.routes(tenant).await.unwrap().version;
        let unit = IngestUnit { tenant, routing_version, claim: None, events: vec![event] };
        let outbox_id = OutboxId::new(self.clock.now(), &SystemEntropy);
        let group = IngestGroup { units: vec![unit], outbox_id, published: Vec::new() };
        let outcomes = self.store.ingest(&group).await.unwrap();
        assert!(matches!(outcomes[..], [UnitOutcome::Committed(_)]), "{outcomes:?}");
        (id.to_string(), ids)
    }

    /// A new event of now with one delivery to each of these destinations.
    pub async fn event(&self, destinations: &[&str]) -> (String, Vec<String>) {
        self.event_at(self.clock.now(), TenantId::DEFAULT, EventMeta::default(), None, destinations).await
    }

    /// What a write is about.
    pub async fn target(&self, delivery: &str) -> Target {
        self.target_in(TenantId::DEFAULT, delivery).await
    }

    async fn target_in(&self, tenant_id: TenantId, delivery: &str) -> Target {
        let id: DeliveryId = delivery.parse().unwrap();
        let view = self.store.delivery(tenant_id, id).await.unwrap().unwrap();
        Target { delivery_id: id, tenant_id, destination_id: view.destination_id, event_id: view.event_id, lease: None }
    }

    pub async fn write(&self, write: DeliveryWrite) {
        let report = self.store.write(&[write], false).await.unwrap();
        assert_eq!(report.written, [Written::Done]);
    }

    /// What came of the next request of a delivery.
    pub async fn attempted(&self, delivery: &str, next: Next) {
        self.attempted_in(TenantId::DEFAULT, delivery, next).await;
    }

    /// The same of another tenant's.
    pub async fn attempted_in(&self, tenant: TenantId, delivery: &str, next: Next) {
        let target = self.target_in(tenant, delivery).await;
        let recorded = self.store.delivery(tenant, target.delivery_id).await.unwrap().unwrap().attempts;
        let (outcome, status_code, error) = match next {
            Next::Delivered => (AttemptOutcome::Delivered, Some(200), None),
            Next::Retry { .. } => (AttemptOutcome::Retry, None, Some("connection refused".to_owned())),
            Next::Dead { .. } => (AttemptOutcome::Dead, Some(400), Some("answered 400".to_owned())),
        };
        let attempt = Attempt {
            number: recorded + 1,
            started_at: self.clock.now(),
            duration: Duration::from_micros(12_600),
            outcome,
            status_code,
            response_excerpt: Bytes::from_static(b"r\xffsult"),
            error,
        };
        self.write(DeliveryWrite::Attempt { target, attempt, next }).await;
    }

    /// A dead letter to this destination; its delivery's id.
    pub async fn dead_letter(&self, destination: &str, reason: DeadReason) -> String {
        let (_, deliveries) = self.event(&[destination]).await;
        self.attempted(&deliveries[0], Next::Dead { reason }).await;
        deliveries[0].clone()
    }
}

/// What a router answers.
pub async fn answer(router: Router, request: Request<Body>) -> Reply {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Reply { status: parts.status, headers: parts.headers, bytes, body }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// An id of a destination that nobody has.
pub const NO_DESTINATION: &str = "dst_01h2e8kqvbfwea724h75qc655w";

/// The ids of a list's items.
pub fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// One page with everything on it.
pub fn all(list: &Value) -> &Vec<Value> {
    assert_eq!(list["next_cursor"], Value::Null);
    list["data"].as_array().unwrap()
}

/// The id of a destination, parsed.
pub fn destination_id(text: &str) -> DestinationId {
    text.parse().unwrap()
}

/// A URL that may be sent to, as a body.
pub fn at(url: &str) -> Value {
    json!({"url": url})
}
