//! A sender, and what it sends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use signalpost_core::{
    CircuitPolicy, Clock, DeliveryId, Destination, DestinationId, DestinationSpec, Event, EventId, EventMeta,
    Guarantee, Kept, TenantId, Timestamp,
    destination::{self, BodyFormat, DisableAfter},
    ordering::Ordering as Order,
    retry_policy::RetryPolicy,
    signature::default_signatures,
};
use signalpost_runtime::SystemEntropy;
use signalpost_sender::{EgressPolicy, EgressProxy, Exchange, Outgoing, Sender, SenderSettings};
use signalpost_vault::KeyRing;

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000) + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Nothing but the public internet, over `http` too: what is refused is refused for its address.
pub fn public() -> EgressPolicy {
    EgressPolicy { require_https: false, ..EgressPolicy::public_only() }
}

/// Besides the public internet, these.
pub fn allowing(nets: &[&str]) -> EgressPolicy {
    EgressPolicy { allow: nets.iter().map(|net| net.parse().unwrap()).collect(), ..public() }
}

/// A sender with a clock that stands still.
pub fn sender(egress: EgressPolicy) -> (Sender, Arc<HandClock>) {
    sender_through(egress, None)
}

/// The same, through a proxy.
pub fn sender_through(egress: EgressPolicy, proxy: Option<EgressProxy>) -> (Sender, Arc<HandClock>) {
    let clock = Arc::new(HandClock::default());
    let vault = Arc::new(KeyRing::parse("test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap());
    let settings = SenderSettings::new(egress, Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SystemEntropy), vault);
    (Sender::new(SenderSettings { proxy, ..settings }).unwrap(), clock)
}

/// Sends one event to this URL.
pub async fn send(sender: &Sender, url: &str) -> Exchange {
    let destination = destination(url);
    let at = Timestamp::from_millis(1_700_000_000_000);
    let event = Event {
        id: EventId::from_parts(at, [2; 10]),
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".to_owned(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(b"{}"),
    };
    let delivery_id = DeliveryId::from_parts(at, [3; 10]);
    sender
        .send(&Outgoing { destination: &destination, event: &event, delivery_id, attempt: 1, at, traceparent: None })
        .await
}

fn destination(url: &str) -> Destination {
    let at = Timestamp::from_millis(0);
    Destination::new(
        DestinationId::from_parts(at, [1; 10]),
        TenantId::DEFAULT,
        DestinationSpec {
            name: "test".to_owned(),
            description: None,
            url: url.to_owned(),
            event_types: Vec::new(),
            method: destination::Method::Post,
            header_names: BTreeSet::new(),
            signatures: default_signatures(),
            body_format: BodyFormat::Standard,
            timeout_ms: 5000,
            rate_limit: None,
            max_in_flight: destination::default_max_in_flight(),
            retry: RetryPolicy::default(),
            circuit: CircuitPolicy::default(),
            guarantee: Guarantee::default(),
            ordering: Order::default(),
            disable_after: DisableAfter::default(),
            metadata: BTreeMap::new(),
        },
        Kept::plain("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        at,
    )
}

/// The URLs of one of the two lists.
pub fn urls(list: &str) -> Vec<String> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with("# ") && *line != "#");
    lines
        .map(|line| if line.starts_with('"') { serde_json::from_str(line).unwrap() } else { line.to_owned() })
        .collect()
}

/// URLs that no destination may have.
pub const FORBIDDEN: &str = include_str!("../forbidden_urls.txt");
/// URLs that a destination may have.
pub const ALLOWED: &str = include_str!("../allowed_urls.txt");
