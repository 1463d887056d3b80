//! What may become of a delivery.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use signalpost_bus::{Delivered, Origin, Payload};
use signalpost_core::{
    AttemptOutcome, DeadReason, DeliveryState, DestinationState, Timestamp, WaitReason, classify::Answer,
    retry_policy::STANDARD_DELAYS_MS,
};
use signalpost_store::dispatch::{DeliveryWrite, Next, Standing};

use super::harness::{Harness, always, ms};
use crate::{
    AttemptReport, Observer, Settings,
    fakes::{FakeLimits, START, Script, delivery_id, destination, destination_id, event, message, standing, status},
};

#[tokio::test(start_paused = true)]
async fn a_2xx_delivers_and_commits() {
    let it = Harness::start([destination(1)], always(ms(20), status(204)));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    let writes = it.store.of(1);
    let [DeliveryWrite::Attempt { attempt, next: Next::Delivered, .. }] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((attempt.number, attempt.outcome, attempt.status_code), (1, AttemptOutcome::Delivered, Some(204)));
    assert_eq!((attempt.duration, attempt.started_at.since(START) < ms(20)), (ms(20), true));
    it.drain().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_after_the_pause_of_the_policy() {
    let it = Harness::start([destination(1)], always(ms(20), status(500)));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    let writes = it.store.of(1);
    let [DeliveryWrite::Attempt { next: Next::Retry { after }, .. }] = &writes[..] else { panic!("{writes:?}") };
    assert!((ms(4000)..=ms(6000)).contains(after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_followed_by_death_and_410_disables() {
    let script = Box::new(|outgoing: &signalpost_sender::Outgoing<'_>| {
        (ms(1), Some(status(if outgoing.destination.id == destination_id(1) { 500 } else { 410 })))
    });
    let it = Harness::start([destination(1), destination(2)], script);
    let mut last = message(1, 1);
    last.attempt = 10;
    it.bus.send(last);
    it.bus.send(message(2, 2));
    it.until_all_done().await;
    for (delivery, expected) in [(1, DeadReason::Exhausted), (2, DeadReason::Gone)] {
        let writes = it.store.of(delivery);
        let [DeliveryWrite::Attempt { next: Next::Dead { reason }, .. }] = &writes[..] else { panic!("{writes:?}") };
        assert_eq!(*reason, expected);
    }
    assert_eq!(it.store.state().disabled, [destination_id(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_not_sent_to_gets_no_request() {
    let mut destinations = [destination(1), destination(2), destination(3)];
    destinations[0].state = DestinationState::Paused;
    destinations[1].state = DestinationState::Disabled;
    destinations[2].state = DestinationState::Deleted;
    let it = Harness::start(destinations, always(ms(1), status(200)));
    for number in 1..=4 {
        it.bus.send(message(u32::from(number), number));
    }
    it.until_all_done().await;
    for delivery in [1, 2] {
        let writes = it.store.of(delivery);
        assert!(
            matches!(writes[..], [DeliveryWrite::Park { reason: WaitReason::Paused, hold_queue: false, .. }]),
            "{writes:?}"
        );
    }
    // Deleted, and not known at all.
    for delivery in [3, 4] {
        let writes = it.store.of(delivery);
        assert!(matches!(writes[..], [DeliveryWrite::End { dead: None, .. }]), "{writes:?}");
    }
    assert_eq!(it.exchanger.started(), []);
}

#[tokio::test(start_paused = true)]
async fn age_counts_from_birth_and_a_replay_is_born_when_it_is_made() {
    let settings = Settings { max_age: ms(60_000), ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(1), status(500)), settings, None);
    tokio::time::sleep(ms(60_001)).await;
    for (delivery, attempt, born_at) in
        [(1, 1, None), (2, 2, None), (3, 1, Some(START + ms(60_000))), (4, 2, Some(START + ms(3000)))]
    {
        let mut old = message(delivery, 1);
        old.attempt = attempt;
        old.born_at = born_at;
        old.origin = Origin::Feed { leased_until: START };
        let waiting = Some((START, WaitReason::Retry));
        let standing = Standing { waiting, born_at, ..standing(DeliveryState::Waiting, attempt - 1) };
        it.store.state().standings.insert(delivery_id(delivery), standing);
        it.bus.send(old);
    }
    it.until_all_done().await;
    for delivery in [1, 2] {
        let writes = it.store.of(delivery);
        assert!(matches!(writes[..], [DeliveryWrite::End { dead: Some(DeadReason::Expired), .. }]), "{writes:?}");
    }
    let fresh = it.store.of(3);
    assert!(matches!(fresh[..], [DeliveryWrite::Attempt { next: Next::Retry { .. }, .. }]), "{fresh:?}");
    // Its next attempt, five minutes from now, would come too late.
    let last = it.store.of(4);
    let expired = Next::Dead { reason: DeadReason::Expired };
    assert!(matches!(last[..], [DeliveryWrite::Attempt { next, .. }] if next == expired), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn the_default_schedule_takes_three_days_and_ten_attempts() {
    let settings = Settings { poll: Duration::from_secs(3600), ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(1), status(500)), settings, None);
    let mut passed = Duration::ZERO;
    for attempt in 1..=10_u32 {
        let mut due = message(1, 1);
        due.attempt = attempt;
        due.origin = Origin::Feed { leased_until: START };
        let waiting = Some((START, WaitReason::Retry));
        let standing = Standing { waiting, ..standing(DeliveryState::Waiting, attempt - 1) };
        it.store.state().standings.insert(delivery_id(1), standing);
        it.bus.send(due);
        it.until_all_done().await;
        let writes = it.store.of(1);
        assert_eq!(writes.len(), attempt as usize, "{writes:?}");
        match (STANDARD_DELAYS_MS.get(attempt as usize - 1), writes.last()) {
            (Some(delay), Some(DeliveryWrite::Attempt { next: Next::Retry { after }, .. })) => {
                let delay = ms(*delay);
                assert!((delay.mul_f64(0.8)..=delay.mul_f64(1.2)).contains(after), "attempt {attempt}: {after:?}");
                passed += *after;
                // What the store and retry do: nothing happens before it is due.
                tokio::time::sleep(*after).await;
            }
            (None, Some(DeliveryWrite::Attempt { next: Next::Dead { reason: DeadReason::Exhausted }, .. })) => {}
            other => panic!("attempt {attempt}: {other:?}"),
        }
    }
    let whole = Duration::from_millis(STANDARD_DELAYS_MS.iter().sum());
    assert!((whole.mul_f64(0.8)..=whole.mul_f64(1.2)).contains(&passed), "{passed:?} of {whole:?}");
    assert!(it.elapsed() >= passed);
}

#[tokio::test(start_paused = true)]
async fn suspects_are_sent_only_where_the_store_agrees() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    let lease = START + ms(60_000);
    let standing = |state, attempts, due: Option<Timestamp>| Standing {
        waiting: due.map(|due| (due, WaitReason::Retry)),
        ..standing(state, attempts)
    };
    for (delivery, origin, known) in [
        (1, Origin::Feed { leased_until: lease }, standing(DeliveryState::Waiting, 0, Some(lease))),
        (2, Origin::Feed { leased_until: lease }, standing(DeliveryState::Waiting, 0, Some(lease + ms(1)))),
        (3, Origin::Feed { leased_until: lease }, standing(DeliveryState::Delivered, 1, None)),
    ] {
        it.store.state().standings.insert(delivery_id(delivery), known);
        let mut suspect = message(delivery, 1);
        suspect.origin = origin;
        it.bus.send(suspect);
    }
    // Fresh, but it lay in its partition before we had it; the store knows that it was anchored since.
    it.store.state().standings.insert(delivery_id(4), standing(DeliveryState::Waiting, 0, Some(lease)));
    let place = it.bus.next_place();
    it.bus.push(Delivered::Message { place, message: Arc::new(message(4, 1)), reread: true });
    it.until_all_done().await;
    // Fresh, but so late that the relay may have taken it over: it is looked up, and there it is delivered.
    tokio::time::sleep(ms(8001)).await;
    it.store.state().standings.insert(delivery_id(5), standing(DeliveryState::Delivered, 1, None));
    it.bus.send(message(5, 1));
    it.until_all_done().await;
    let started: Vec<_> = it.exchanger.started().iter().map(|started| started.delivery_id).collect();
    assert_eq!(started, [delivery_id(1)]);
}

#[tokio::test(start_paused = true)]
async fn the_same_delivery_twice_in_hand_is_sent_once() {
    let it = Harness::start([destination(1)], always(ms(500), status(200)));
    it.bus.send(message(1, 1));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert_eq!(it.exchanger.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_claimed_is_parked_and_what_is_done_is_given_back() {
    let limits = Arc::new(FakeLimits::default());
    limits.others.lock().unwrap().insert(delivery_id(1));
    let settings = Settings::default();
    let it = Harness::with([destination(1)], always(ms(4000), status(200)), settings, Some(Arc::clone(&limits) as _));
    it.bus.send(message(1, 1));
    it.bus.send(message(2, 1));
    it.until("both written", |it| it.store.state().writes.len() == 3).await;
    let parked = it.store.of(1);
    assert!(matches!(parked[..], [DeliveryWrite::Park { reason: WaitReason::Turn, after, .. }] if after == ms(5000)));
    it.until("given back", |_| limits.released.lock().unwrap().iter().any(|c| c.delivery_id == delivery_id(2))).await;
    let renewed = limits.renewed.lock().unwrap().iter().filter(|claim| claim.delivery_id == delivery_id(2)).count();
    assert_eq!(renewed, 2, "in 4 s a claim of 5 s is renewed twice");
}

#[tokio::test(start_paused = true)]
async fn payloads_by_reference_are_read_in_batches() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    for delivery in 1..=20 {
        it.store.state().events.insert(event(delivery, b"").id, Arc::new(event(delivery, b"\"large\"")));
        let mut light = message(delivery, 1);
        light.payload = Payload::ByReference;
        light.event = Arc::new(event(delivery, b""));
        it.bus.send(light);
    }
    it.until_all_done().await;
    assert_eq!(it.exchanger.started().len(), 20);
    assert!(it.exchanger.started().iter().all(|started| &started.data[..] == b"\"large\""));
    assert!(it.store.state().event_reads <= 3, "{} reads", it.store.state().event_reads);
}

#[tokio::test(start_paused = true)]
async fn large_payloads_wait_for_their_room_for_a_while_and_small_ones_do_not() {
    // Each of 1000 bytes counts as 2 KiB: two at once. One of 9000 takes all there is, and is not reached in time; nor is what
    // waits behind it.
    let settings = Settings { max_large_bytes: 4096, ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(900), status(200)), settings, None);
    for (delivery, length) in [(1, 1000), (2, 1000), (3, 1000), (4, 9000), (5, 1000)] {
        it.send_large(delivery, length);
    }
    it.bus.send(message(6, 1));
    it.until_all_done().await;
    let started = it.exchanger.started();
    let mut rounds: Vec<_> = started.iter().map(|it| (it.delivery_id, it.at.as_millis() / 900)).collect();
    rounds.sort_unstable();
    assert_eq!(rounds, [(1, 0), (2, 0), (3, 1), (6, 0)].map(|(delivery, round)| (delivery_id(delivery), round)));
    assert_eq!(started.iter().map(|it| it.data.len()).sum::<usize>(), 3000 + message(6, 1).event.data.len());
    for waits in [4, 5] {
        let parked = it.store.of(waits);
        let [DeliveryWrite::Park { reason: WaitReason::Turn, after, hold_queue: false, .. }] = parked[..] else {
            panic!("{parked:?}")
        };
        assert_eq!(after, ms(1000));
    }
    // When they come back, the size of each is known: it is read when there is room for it, and not before.
    let reads = it.store.state().event_reads;
    let before = it.elapsed();
    it.send_large(4, 9000);
    it.send_large(5, 1000);
    it.until_all_done().await;
    assert!(it.exchanger.started()[4..].iter().all(|it| it.at >= before));
    assert_eq!((it.exchanger.started().len(), it.store.state().event_reads - reads), (6, 2));
}

#[tokio::test(start_paused = true)]
async fn large_payloads_to_slow_destinations_hold_up_nobody_else() {
    let settings = Settings { max_large_bytes: 2048, max_gap: 100, ..Settings::default() };
    let script: Script = Box::new(|outgoing| {
        let is_slow = outgoing.destination.id == destination_id(1);
        (if is_slow { ms(14_000) } else { ms(1) }, Some(status(200)))
    });
    let it = Harness::with([destination(1), destination(2)], script, settings, None);
    for delivery in 1..=4 {
        it.send_large(delivery, 1000);
    }
    for delivery in 5..=2000 {
        it.bus.send(message(delivery, 2));
    }
    it.until_all_done().await;
    assert!(it.elapsed() < ms(3000), "{:?}", it.elapsed());
    assert_eq!(it.exchanger.started().len(), 1 + 1996);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_set_aside_and_holds_nothing_up() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    let place = it.bus.next_place();
    it.bus.push(Delivered::Undecodable { place, delivery_id: Some(delivery_id(9)), error: "version 9".into() });
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert_eq!(it.bus.state().set_aside, [place]);
    assert_eq!(it.exchanger.started().len(), 1);
}

#[derive(Default)]
struct Watching(Mutex<Vec<AttemptReport>>);

impl Observer for Watching {
    fn attempted(&self, report: &AttemptReport) {
        self.0.lock().unwrap().push(report.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_of_every_attempt() {
    let watching = Arc::new(Watching::default());
    let settings = Settings { observer: Some(Arc::clone(&watching) as _), ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(30), Answer::Unreachable), settings, None);
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    let reports = watching.0.lock().unwrap().clone();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.attempt, report.max_attempts, report.duration), (1, Some(10), ms(30)));
    assert_eq!((report.destination_name.as_str(), report.outcome), ("destination 1", AttemptOutcome::Retry));
    assert!(report.next_in.is_some_and(|next| next >= ms(4000)));
}
