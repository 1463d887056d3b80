//! Detaching, revocation, drain, stop.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use signalpost_bus::{Delivered, Message};
use signalpost_sender::Outgoing;
use signalpost_store::dispatch::{DeliveryWrite, Next};

use super::harness::{Harness, always, ms};
use crate::{
    Settings,
    fakes::{FakeLimits, Script, destination, limited, message, status},
};

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_releases_its_offset_and_goes_on() {
    let it = Harness::start([destination(1)], always(ms(5000), status(200)));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert!((ms(1000)..ms(1100)).contains(&it.elapsed()), "{:?}", it.elapsed());
    let writes = it.store.of(1);
    let [DeliveryWrite::Detach { attempt: 1, deadline, .. }] = &writes[..] else { panic!("{writes:?}") };
    assert!(*deadline >= ms(15_000), "{deadline:?}");
    it.until("the outcome", |it| it.store.of(1).len() == 2).await;
    assert!(matches!(it.store.of(1)[1], DeliveryWrite::Attempt { next: Next::Delivered, .. }));
    assert!((ms(5000)..ms(5100)).contains(&it.elapsed()), "{:?}", it.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_outcome_is_never_written_before_the_detaching() {
    let it = Harness::start([destination(1)], always(ms(1001), status(200)));
    it.store.state().is_away = true;
    tokio::time::sleep(ms(10)).await;
    it.store.state().is_away = false;
    it.bus.send(message(1, 1));
    it.until("it is out", |it| !it.exchanger.started().is_empty()).await;
    it.store.state().is_away = true;
    tokio::time::sleep(ms(3000)).await;
    it.store.state().is_away = false;
    it.until("both", |it| it.store.of(1).len() == 2).await;
    assert!(matches!(it.store.of(1)[..], [DeliveryWrite::Detach { .. }, DeliveryWrite::Attempt { .. }]));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_let_go_when_what_is_out_is_safe() {
    let mut narrow = destination(1);
    narrow.spec.max_in_flight = NonZeroU32::MIN;
    let it = Harness::start([narrow], always(ms(5000), status(200)));
    let first = it.bus.send(message(1, 1));
    it.bus.send(message(2, 1));
    it.until("it is out", |it| !it.exchanger.started().is_empty()).await;
    let before = it.elapsed();
    it.bus.push(Delivered::Revoked(vec![0]));
    it.until("released", |it| it.bus.state().released == [0]).await;
    assert!(it.elapsed() - before < ms(100));
    assert!(matches!(it.store.of(1)[..], [DeliveryWrite::Detach { .. }]));
    assert_eq!(it.bus.committed(), first.offset + 1, "what waited is left to the next owner");
    it.until("the outcome", |it| it.store.of(1).len() == 2).await;
    tokio::time::sleep(ms(5000)).await;
    assert_eq!(it.exchanger.started().len(), 1);
    assert_eq!(it.store.of(2), []);
}

/// Two large payloads for a slow destination, with room for one.
async fn one_of_two_waits_for_room() -> Harness {
    let settings = Settings { max_large_bytes: 2048, ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(5000), status(200)), settings, None);
    it.send_large(1, 1000);
    it.send_large(2, 1000);
    it.until("one is out", |it| it.exchanger.started().len() == 1).await;
    tokio::time::sleep(ms(10)).await;
    it
}

#[tokio::test(start_paused = true)]
async fn a_payload_without_room_holds_up_no_revocation() {
    let it = one_of_two_waits_for_room().await;
    let before = it.elapsed();
    it.bus.push(Delivered::Revoked(vec![0]));
    it.until("released", |it| it.bus.state().released == [0]).await;
    assert!(it.elapsed() - before < ms(100));
    assert!(matches!(it.store.of(2)[..], [DeliveryWrite::Park { after: Duration::ZERO, hold_queue: false, .. }]));
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(it.exchanger.started().len(), 1, "it is somebody else's");
}

#[tokio::test(start_paused = true)]
async fn a_payload_without_room_holds_up_no_drain() {
    let it = one_of_two_waits_for_room().await;
    let (store, exchanger, start) = (it.store.clone(), it.exchanger.clone(), it.start);
    it.drain().await.unwrap();
    assert!((ms(5000)..ms(5200)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(matches!(store.of(2)[..], [DeliveryWrite::Park { after: Duration::ZERO, hold_queue: false, .. }]));
    assert_eq!(exchanger.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_is_out_and_leaves_what_waits() {
    let it = Harness::start([limited(1, 0.1), destination(2)], always(ms(3000), status(200)));
    it.bus.send(message(1, 2));
    it.bus.send(message(2, 1));
    let waits = it.bus.send(message(3, 1));
    it.until("two are out", |it| it.exchanger.started().len() == 2).await;
    let (store, bus, before) = (it.store.clone(), it.bus.clone(), it.start);
    it.drain().await.unwrap();
    assert!((ms(3000)..ms(3100)).contains(&before.elapsed()), "{:?}", before.elapsed());
    for delivery in [1, 2] {
        assert!(matches!(store.of(delivery)[..], [DeliveryWrite::Detach { .. }, DeliveryWrite::Attempt { .. }]));
    }
    assert_eq!(store.of(3), []);
    assert_eq!(bus.committed(), waits.offset);
    assert!(bus.state().closed);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_claims_back_when_their_deliveries_are_settled() {
    let long = |outgoing: &Outgoing<'_>| outgoing.attempt == 1;
    let script: Script =
        Box::new(move |outgoing| (if long(outgoing) { ms(9000) } else { ms(2000) }, Some(status(200))));
    let limits = Arc::new(FakeLimits::default());
    let it = Harness::with([destination(1)], script, Settings::default(), Some(Arc::clone(&limits) as _));
    it.bus.send(message(1, 1));
    it.bus.send(Message { attempt: 2, ..message(2, 1) });
    it.until("two are out", |it| it.exchanger.started().len() == 2).await;
    let start = it.start;
    let looking = async {
        tokio::time::sleep(ms(3000)).await;
        let released = limits.released.lock().unwrap().clone();
        assert_eq!(released.iter().map(|claim| claim.attempt).collect::<Vec<_>>(), [2], "the other one is still out");
    };
    let (result, ()) = tokio::join!(it.drain(), looking);
    result.unwrap();
    assert!((ms(9000)..ms(9100)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(limits.released.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_leaves_the_rest_to_the_store() {
    let settings = Settings { drain: ms(2000), ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(15_000), status(200)), settings, None);
    it.bus.send(message(1, 1));
    it.until("it is out", |it| !it.exchanger.started().is_empty()).await;
    let (store, bus, start) = (it.store.clone(), it.bus.clone(), it.start);
    it.drain().await.unwrap();
    assert!(start.elapsed() < ms(2500), "{:?}", start.elapsed());
    assert!(matches!(store.of(1)[..], [DeliveryWrite::Detach { .. }]));
    assert_eq!(bus.committed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_stops_at_once() {
    let it = Harness::start([destination(1)], always(ms(15_000), status(200)));
    it.bus.send(message(1, 1));
    it.until("it is out", |it| !it.exchanger.started().is_empty()).await;
    let before = it.elapsed();
    it.shutdown.stop();
    it.running.await.unwrap().unwrap();
    assert!(it.start.elapsed() - before < ms(10));
    assert_eq!(it.bus.committed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_drain_stops_at_once() {
    let it = Harness::start([destination(1)], always(ms(15_000), status(200)));
    it.bus.send(message(1, 1));
    it.until("it is out", |it| !it.exchanger.started().is_empty()).await;
    let (shutdown, start) = (it.shutdown.clone(), it.start);
    let before = it.elapsed();
    let stopping = async {
        tokio::time::sleep(ms(500)).await;
        shutdown.stop();
    };
    let (result, ()) = tokio::join!(it.drain(), stopping);
    result.unwrap();
    assert!(start.elapsed() - before < ms(600));
}
