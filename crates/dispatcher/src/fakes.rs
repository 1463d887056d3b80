//! What the tests of this crate stand on: a clock in paused time, a store and a bus in memory that fail on demand, an
//! exchanger that answers by script.

mod bus;
mod outside;
mod store;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) use bus::{BusHandle, FakeBus};
use bytes::Bytes;
pub(crate) use outside::{FakeLimits, Script, Scripted, Started, closed, status};
use signalpost_bus::{Message, Origin, Payload};
use signalpost_core::{
    CircuitPolicy, Clock, DeliveryId, DeliveryState, Destination, DestinationId, DestinationSpec, Entropy, Event,
    EventId, EventMeta, Guarantee, Kept, TenantId, Timestamp,
    destination::{BodyFormat, DisableAfter, Method, RateLimit, default_max_in_flight},
    ordering::Ordering,
    retry_policy::RetryPolicy,
};
use signalpost_store::dispatch::Standing;
pub(crate) use store::FakeStore;
use tokio::time::Instant;

/// The time of day at the start of every test.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Follows tokio's time, which tests pause.
#[derive(Debug)]
pub(crate) struct TokioClock(Instant);

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        START + self.elapsed()
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Counts.
#[derive(Debug, Default)]
pub(crate) struct Counting(Mutex<u8>);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let mut last = self.0.lock().unwrap();
        for byte in bytes {
            *last = last.wrapping_mul(73).wrapping_add(41);
            *byte = *last;
        }
    }
}

pub(crate) fn destination(number: u8) -> Destination {
    Destination::new(
        destination_id(number),
        TenantId::DEFAULT,
        DestinationSpec {
            name: format!("destination {number}"),
            description: None,
            url: format!("https://{number}.example/"),
            event_types: Vec::new(),
            method: Method::Post,
            header_names: std::collections::BTreeSet::new(),
            signatures: signalpost_core::signature::default_signatures(),
            body_format: BodyFormat::Standard,
            timeout_ms: 15_000,
            rate_limit: None,
            max_in_flight: default_max_in_flight(),
            retry: RetryPolicy::default(),
            circuit: CircuitPolicy::default(),
            guarantee: Guarantee::AtLeastOnce,
            ordering: Ordering::default(),
            disable_after: DisableAfter::default(),
            metadata: BTreeMap::new(),
        },
        Kept::plain("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        START,
    )
}

pub(crate) fn limited(number: u8, per_second: f64) -> Destination {
    let mut destination = destination(number);
    destination.spec.rate_limit = Some(RateLimit { per_second, burst: NonZeroU32::new(1) });
    destination
}

pub(crate) fn destination_id(number: u8) -> DestinationId {
    DestinationId::from_parts(START, [number; 10])
}

pub(crate) fn delivery_id(number: u32) -> DeliveryId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    DeliveryId::from_parts(START, random)
}

pub(crate) fn message(delivery: u32, destination: u8) -> Message {
    Message {
        delivery_id: delivery_id(delivery),
        tenant_id: TenantId::DEFAULT,
        destination_id: destination_id(destination),
        destination_version: 1,
        attempt: 1,
        origin: Origin::Fresh,
        event: Arc::new(event(delivery, b"{}")),
        payload: Payload::Inline,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
        born_at: None,
    }
}

/// A delivery that waits for nothing.
pub(crate) const fn standing(state: DeliveryState, attempts: u32) -> Standing {
    Standing {
        state,
        attempts,
        waiting: None,
        lease_left: None,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
        born_at: None,
    }
}

pub(crate) fn event(number: u32, data: &'static [u8]) -> Event {
    Event {
        id: EventId::from_uuid(delivery_id(number).uuid()),
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".into(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(data),
    }
}
