//! Failures of ours: they cost no attempt and lose nothing.

use std::sync::{Arc, atomic::Ordering};

use signalpost_bus::{Delivered, Payload};
use signalpost_core::WaitReason;
use signalpost_sender::Outgoing;
use signalpost_store::dispatch::{DeliveryWrite, Next};

use super::harness::{Harness, always, ms};
use crate::{
    Settings,
    fakes::{FakeLimits, delivery_id, destination, event, message, status},
};

#[tokio::test(start_paused = true)]
async fn while_outcomes_are_unwritten_nothing_new_starts_and_all_are_written_after() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.bus.send(message(0, 1));
    it.until_all_done().await;
    it.store.state().is_away = true;
    for delivery in 1..=10 {
        it.bus.send(message(delivery, 1));
    }
    tokio::time::sleep(ms(1500)).await;
    let before = it.exchanger.started().len();
    assert_eq!(before, 11, "the first second goes on");
    for delivery in 11..=500 {
        it.bus.send(message(delivery, 1));
    }
    tokio::time::sleep(ms(5000)).await;
    assert_eq!(it.exchanger.started().len(), before);
    assert_eq!(it.bus.committed(), 1);
    it.store.state().is_away = false;
    it.until_all_done().await;
    assert!((0..=500).all(|delivery| !it.store.of(delivery).is_empty()));
    let sent = it.exchanger.started();
    assert!((0..=500).all(|delivery| sent.iter().filter(|s| s.delivery_id == delivery_id(delivery)).count() <= 1));
    let parked =
        it.store.state().writes.iter().filter(|(_, write)| matches!(write, DeliveryWrite::Park { .. })).count();
    assert_eq!(parked, 0, "an outage of the store spills no destination");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_falls_out_of_the_cache_is_not_taken_for_deleted() {
    let settings = Settings { cached_destinations: 1, ..Settings::default() };
    let it = Harness::with([destination(1), destination(2)], always(ms(1), status(200)), settings, None);
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    // The second one must be loaded, and there is room for one only.
    it.bus.send(message(2, 1));
    it.bus.send(message(3, 2));
    it.until_all_done().await;
    for delivery in [2, 3] {
        let writes = it.store.of(delivery);
        assert!(matches!(writes[..], [DeliveryWrite::Attempt { next: Next::Delivered, .. }]), "{writes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_messages_that_cannot_be_set_aside_hold_up_nothing_for_long() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.bus.state().set_aside_hangs = true;
    for _ in 0..20 {
        let place = it.bus.next_place();
        it.bus.push(Delivered::Undecodable { place, delivery_id: None, error: "broken".into() });
    }
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert!(it.elapsed() < ms(3000), "{:?}", it.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_the_start_is_waited_for() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().is_away = true;
    it.bus.send(message(1, 1));
    tokio::time::sleep(ms(3000)).await;
    assert_eq!(it.exchanger.started(), []);
    it.store.state().is_away = false;
    it.until_all_done().await;
    assert!(matches!(it.store.of(1)[..], [DeliveryWrite::Attempt { next: Next::Delivered, .. }]));
}

#[tokio::test(start_paused = true)]
async fn one_refused_outcome_does_not_hold_the_others() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().refused.insert(delivery_id(3));
    for delivery in 1..=5 {
        it.bus.send(message(delivery, 1));
    }
    it.until_all_done().await;
    for delivery in [1, 2, 4, 5] {
        assert_eq!(it.store.of(delivery).len(), 1, "{delivery}");
    }
    let writes = it.store.of(3);
    assert!(matches!(writes[..], [DeliveryWrite::Park { reason: WaitReason::Turn, .. }]), "it comes back: {writes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_is_asked_again() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().panics = true;
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert_eq!(it.store.of(1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_breaks_costs_no_attempt_and_no_slot() {
    let script =
        Box::new(|outgoing: &Outgoing<'_>| (ms(1), (outgoing.delivery_id != delivery_id(1)).then_some(status(200))));
    let mut narrow = destination(1);
    narrow.spec.max_in_flight = std::num::NonZeroU32::MIN;
    let it = Harness::start([narrow], script);
    it.bus.send(message(1, 1));
    it.bus.send(message(2, 1));
    it.until_all_done().await;
    let writes = it.store.of(1);
    assert!(matches!(writes[..], [DeliveryWrite::Park { reason: WaitReason::Turn, .. }]), "{writes:?}");
    assert!(matches!(it.store.of(2)[..], [DeliveryWrite::Attempt { next: Next::Delivered, .. }]));
}

#[tokio::test(start_paused = true)]
async fn without_limits_deliveries_go_on() {
    let limits = Arc::new(FakeLimits::default());
    limits.is_away.store(true, Ordering::SeqCst);
    let it = Harness::with(
        [destination(1)],
        always(ms(1), status(200)),
        Settings::default(),
        Some(Arc::clone(&limits) as _),
    );
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert!(matches!(it.store.of(1)[..], [DeliveryWrite::Attempt { next: Next::Delivered, .. }]));
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_cannot_be_read_now_is_read_later() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().event_read_panics = true;
    it.store.state().events.insert(event(1, b"").id, Arc::new(event(1, b"1")));
    let mut light = message(1, 1);
    light.payload = Payload::ByReference;
    it.bus.send(light);
    it.until_all_done().await;
    assert!(matches!(it.store.of(1)[..], [DeliveryWrite::Attempt { next: Next::Delivered, .. }]));
}
