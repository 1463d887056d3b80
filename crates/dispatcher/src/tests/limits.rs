//! Pace, slots, fairness, changes while deliveries wait.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use signalpost_bus::Payload;
use signalpost_core::{DestinationState, WaitReason, classify::Answer};
use signalpost_sender::Outgoing;
use signalpost_store::dispatch::DeliveryWrite;

use super::harness::{Harness, always, ms};
use crate::{
    Settings,
    fakes::{delivery_id, destination, destination_id, event, limited, message, status},
};

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_what_waits_too_long_is_parked() {
    let it = Harness::start([limited(1, 20.0)], always(ms(1), status(200)));
    for delivery in 0..100 {
        it.bus.send(message(delivery, 1));
    }
    it.until_all_done().await;
    let times: Vec<_> = it.exchanger.started().iter().map(|started| started.at).collect();
    // In any t seconds at most burst + 1.02 × rate × t; while work waits at least 98 % of the rate.
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let most = 1.0 + 1.02 * 20.0 * (*to - *from).as_secs_f64() + 1e-6;
            assert!((last - first) as f64 <= most, "{} requests in {:?}", last - first + 1, *to - *from);
        }
    }
    let span = (times[times.len() - 1] - times[0]).as_secs_f64();
    assert!((times.len() - 1) as f64 >= 0.98 * 20.0 * span, "{} in {span} s", times.len());
    assert!((38..=42).contains(&times.len()), "{} went out in 2 s", times.len());
    let parked: Vec<_> = it
        .store
        .state()
        .writes
        .iter()
        .filter_map(|(_, write)| match write {
            DeliveryWrite::Park { reason, hold_queue, .. } => Some((*reason, *hold_queue)),
            _ => None,
        })
        .collect();
    assert_eq!(parked.len() + times.len(), 100);
    assert!(parked.iter().all(|parked| *parked == (WaitReason::RateLimit, true)));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_and_flooded_destination_slows_nobody() {
    let script = Box::new(|outgoing: &Outgoing<'_>| {
        let slow = outgoing.destination.id == destination_id(1);
        if slow { (ms(15_000), Some(Answer::Unreachable)) } else { (ms(5), Some(status(200))) }
    });
    let it = Harness::start([destination(1), destination(2)], script);
    for delivery in 0..20_000 {
        it.bus.send(message(delivery, 1));
    }
    for delivery in 20_000..21_000 {
        it.bus.send(message(delivery, 2));
    }
    let is_fast = |write: &DeliveryWrite| write.target().destination_id == destination_id(2);
    it.until("the fast one is done", |it| {
        it.store.state().writes.iter().filter(|(_, write)| is_fast(write)).count() == 1000
    })
    .await;
    assert!(it.elapsed() < ms(3000), "{:?}", it.elapsed());
    let slow = it.exchanger.started().iter().filter(|started| started.destination_id == destination_id(1)).count();
    assert_eq!(slow, 100, "its slots");
    it.until_all_done().await;
    assert!(it.elapsed() < ms(5000), "all offsets are released: {:?}", it.elapsed());
    let reasons: Vec<_> = it
        .store
        .state()
        .writes
        .iter()
        .filter_map(|(_, write)| match write {
            DeliveryWrite::Park { reason, hold_queue, .. } => Some((*reason, *hold_queue)),
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 19_900);
    assert!(reasons.iter().all(|parked| *parked == (WaitReason::Slot, true)));
}

#[tokio::test(start_paused = true)]
async fn a_quick_destination_is_not_parked_however_much_comes() {
    let it = Harness::start([destination(1)], always(ms(2), status(200)));
    for delivery in 0..20_000 {
        it.bus.send(message(delivery, 1));
    }
    it.until_all_done().await;
    assert_eq!(it.exchanger.started().len(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn many_hanging_destinations_leave_room_for_another() {
    let script = Box::new(|outgoing: &Outgoing<'_>| {
        let last = outgoing.destination.id == destination_id(200);
        (if last { ms(5) } else { ms(15_000) }, Some(status(200)))
    });
    let settings = Settings { max_in_flight: 200, ..Settings::default() };
    let it = Harness::with((1..=200).map(destination), script, settings, None);
    for delivery in 0..1990_u32 {
        it.bus.send(message(delivery, u8::try_from(delivery % 10).unwrap() + 1));
    }
    it.until("they fill what they may", |it| it.exchanger.started().len() >= 150).await;
    it.bus.send(message(5000, 200));
    let before = it.elapsed();
    it.until("the other one", |it| !it.store.of(5000).is_empty()).await;
    assert!(it.elapsed() - before < ms(100), "{:?}", it.elapsed() - before);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_url_holds_for_the_next_request() {
    let mut slow = destination(1);
    slow.spec.max_in_flight = NonZeroU32::MIN;
    let it = Harness::start([slow], always(ms(10), status(200)));
    for delivery in 0..50 {
        it.bus.send(message(delivery, 1));
    }
    it.until("some are sent", |it| it.exchanger.started().len() >= 10).await;
    let before = it.exchanger.started().len();
    it.store.change(1, |destination| destination.spec.url = "https://new.example/".into());
    it.until_all_done().await;
    let started = it.exchanger.started();
    assert_eq!(started.len(), 50);
    assert!(started[..before].iter().all(|started| started.url == "https://1.example/"));
    assert!(started[before..].iter().all(|started| started.url == "https://new.example/"));
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_in_a_message_is_loaded_first() {
    let it = Harness::start([destination(1)], always(ms(10), status(200)));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    // Changed without a word: as when NOTIFY is lost.
    let mut changed = destination(1);
    changed.version = 2;
    changed.spec.url = "https://new.example/".into();
    it.store.state().destinations.insert(changed.id, changed);
    let mut new = message(2, 1);
    new.destination_version = 2;
    it.bus.send(new);
    it.until_all_done().await;
    assert_eq!(it.exchanger.started()[1].url, "https://new.example/");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_told_is_found_within_a_second() {
    let it = Harness::start([destination(1)], always(ms(10), status(200)));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    for version in 2..=4 {
        let mut changed = destination(1);
        changed.version = version;
        changed.spec.url = format!("https://{version}.new.example/");
        it.store.state().destinations.insert(changed.id, changed.clone());
        tokio::time::sleep(ms(900)).await;
        it.bus.send(message(version, 1));
        it.until_all_done().await;
        assert_eq!(it.exchanger.started().pop().map(|started| started.url), Some(changed.spec.url));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_sends_what_waits_back_at_once() {
    let it = Harness::start([limited(1, 0.5)], always(ms(1), status(200)));
    it.bus.send(message(1, 1));
    it.bus.send(message(2, 1));
    it.until("the first is out", |it| it.exchanger.started().len() == 1).await;
    it.store.change(1, |destination| destination.state = DestinationState::Paused);
    it.until_all_done().await;
    assert!(it.elapsed() < ms(100), "{:?}", it.elapsed());
    let writes = it.store.of(2);
    assert!(matches!(writes[..], [DeliveryWrite::Park { reason: WaitReason::Paused, .. }]), "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_leaves_the_destination_alone() {
    let script = Box::new(|outgoing: &Outgoing<'_>| {
        let slow_down = Answer::Status { code: 429, retry_after: Some(Duration::from_secs(30)) };
        (ms(1), Some(if outgoing.delivery_id == delivery_id(1) { slow_down } else { status(200) }))
    });
    let it = Harness::start([destination(1), destination(2)], script);
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    it.bus.send(message(2, 1));
    it.bus.send(message(3, 2));
    it.until_all_done().await;
    let started: Vec<_> = it.exchanger.started().iter().map(|started| started.delivery_id).collect();
    assert_eq!(started, [delivery_id(1), delivery_id(3)]);
    let writes = it.store.of(2);
    let [DeliveryWrite::Park { reason: WaitReason::RateLimit, after, hold_queue: true, .. }] = writes[..] else {
        panic!("{writes:?}")
    };
    assert!((ms(27_000)..=ms(30_000)).contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_holds_for_a_request_that_waits_for_its_payload() {
    let it = Harness::start([destination(1), destination(2)], always(ms(1), status(200)));
    it.store.state().event_read_takes = ms(200);
    for (delivery, number) in [(1, 1), (2, 2)] {
        it.store.state().events.insert(event(delivery, b"").id, Arc::new(event(delivery, b"1")));
        let mut light = message(delivery, number);
        light.payload = Payload::ByReference;
        it.bus.send(light);
    }
    tokio::time::sleep(ms(100)).await;
    it.store.change(1, |destination| destination.spec.url = "https://new.example/".into());
    it.store.change(2, |destination| destination.state = DestinationState::Paused);
    it.until_all_done().await;
    let urls: Vec<_> = it.exchanger.started().into_iter().map(|started| started.url).collect();
    assert_eq!(urls, ["https://new.example/"]);
    assert!(matches!(it.store.of(2)[..], [DeliveryWrite::Park { reason: WaitReason::Paused, .. }]));
}
