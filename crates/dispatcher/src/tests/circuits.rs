//! A destination that fails is left alone, tried, and taken up again.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use signalpost_bus::{Message, Payload};
use signalpost_core::{
    CircuitRecord, CircuitState, DeliveryState, Destination, DestinationState, Guarantee, WaitReason, classify::Answer,
};
use signalpost_limits::CircuitView;
use signalpost_store::dispatch::{DeliveryWrite, QueueHold};

use super::harness::{Harness, always, ms};
use crate::{
    Settings,
    fakes::{FakeLimits, Script, closed, delivery_id, destination, destination_id, event, message, standing, status},
};

fn quick(number: u8) -> Destination {
    let mut destination = destination(number);
    destination.spec.circuit.open_ms = 1000;
    destination.spec.circuit.probes = NonZeroU32::MIN.saturating_add(1);
    destination
}

/// Answers 500 while the flag is up.
fn failing(flag: &Arc<AtomicBool>) -> Script {
    let flag = Arc::clone(flag);
    Box::new(move |_| (ms(5), Some(status(if flag.load(Ordering::SeqCst) { 500 } else { 200 }))))
}

fn states(it: &Harness) -> Vec<CircuitState> {
    it.store.state().circuits.iter().map(|(_, record)| record.state).collect()
}

fn holds(it: &Harness) -> Vec<QueueHold> {
    it.store.state().holds.iter().map(|(_, hold)| *hold).collect()
}

fn parked(it: &Harness, delivery: u32) -> Option<(WaitReason, Duration)> {
    it.store.of(delivery).into_iter().find_map(|write| match write {
        DeliveryWrite::Park { reason, after, .. } => Some((reason, after)),
        _ => None,
    })
}

/// Opens the circuit of destination 1 by thirty failures.
async fn open(it: &Harness) {
    for delivery in 0..30 {
        it.bus.send(message(delivery, 1));
    }
    it.until("it opens", |it| states(it) == [CircuitState::Open]).await;
}

#[tokio::test(start_paused = true)]
async fn it_opens_is_tried_opens_again_and_closes() {
    let fails = Arc::new(AtomicBool::new(true));
    let it = Harness::start([quick(1)], failing(&fails));
    open(&it).await;
    let [hold] = holds(&it)[..] else { panic!("{:?}", holds(&it)) };
    assert_eq!((hold.destination_id, hold.trial), (destination_id(1), NonZeroU32::new(2)));
    assert!((ms(790)..=ms(1200)).contains(&hold.hold), "{:?}", hold.hold);
    // While it is open nothing is sent.
    let before = it.exchanger.started().len();
    it.bus.send(message(100, 1));
    it.until_all_done().await;
    assert!(
        matches!(parked(&it, 100), Some((WaitReason::Circuit, after)) if after >= ms(700)),
        "{:?}",
        parked(&it, 100)
    );
    assert_eq!(it.exchanger.started().len(), before);
    // Its time is over: of what comes, two are tried, and fail.
    tokio::time::sleep(ms(1300)).await;
    for delivery in 200..205 {
        it.bus.send(message(delivery, 1));
    }
    it.until("it opens again", |it| states(it).last() == Some(&CircuitState::Open) && states(it).len() == 3).await;
    assert_eq!(states(&it), [CircuitState::Open, CircuitState::HalfOpen, CircuitState::Open]);
    it.until_all_done().await;
    assert_eq!(it.exchanger.started().len(), before + 2);
    let waits = (200..205).filter_map(|delivery| parked(&it, delivery)).collect::<Vec<_>>();
    assert!(waits.len() == 3 && waits.iter().all(|(reason, _)| *reason == WaitReason::Circuit), "{waits:?}");
    assert!(holds(&it)[1].hold >= ms(1500), "twice as long: {:?}", holds(&it));
    // Now it works.
    fails.store(false, Ordering::SeqCst);
    tokio::time::sleep(ms(2500)).await;
    for delivery in 300..302 {
        it.bus.send(message(delivery, 1));
    }
    it.until("it closes", |it| states(it).last() == Some(&CircuitState::Closed)).await;
    let last = holds(&it).pop();
    let released = QueueHold { destination_id: destination_id(1), hold: Duration::ZERO, trial: None };
    assert_eq!(last, Some(released));
    // By a ramp.
    let began = it.elapsed();
    for delivery in 400..460 {
        it.bus.send(message(delivery, 1));
    }
    it.until_all_done().await;
    let at = |started: &crate::fakes::Started| started.at >= began && started.at < began + ms(4);
    let first = it.exchanger.started().iter().filter(|started| at(started)).count();
    assert!((1..=4).contains(&first), "{first} at once");
    assert_eq!((400..460).filter(|delivery| parked(&it, *delivery).is_some()).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_could_not_be_told_is_told_later() {
    let limits = Arc::new(FakeLimits::default());
    let open = CircuitView {
        state: CircuitState::Open,
        open_for: ms(60_000),
        record: CircuitRecord { state: CircuitState::Open, trips: 1, ..CircuitRecord::default() },
        ..closed()
    };
    let it =
        Harness::with([destination(1)], always(ms(1), status(500)), Settings::default(), Some(limits.clone() as _));
    it.store.state().holds_fail = true;
    limits.views.lock().unwrap().insert(destination_id(1), open);
    it.bus.send(message(1, 1));
    it.until("it is seen", |_| limits.reports.lock().unwrap().iter().any(|report| report.failures == 1)).await;
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(holds(&it), []);
    it.store.state().holds_fail = false;
    it.until("told", |it| !holds(it).is_empty()).await;
    assert!((ms(35_000)..=ms(40_000)).contains(&holds(&it)[0].hold), "what is left of it: {:?}", holds(&it));
    assert_eq!(states(&it).last(), Some(&CircuitState::Open), "recorded before the queue is held");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_open_is_asked_about_before_anything_is_sent() {
    let limits = Arc::new(FakeLimits::default());
    let record = CircuitRecord { state: CircuitState::Open, trips: 3, ..CircuitRecord::default() };
    let mut known = destination(1);
    known.circuit = record.clone();
    let open = CircuitView { state: CircuitState::Open, open_for: ms(10_000), record, ..closed() };
    limits.views.lock().unwrap().insert(destination_id(1), open);
    let it = Harness::with([known], always(ms(1), status(200)), Settings::default(), Some(limits.clone() as _));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    assert!(matches!(parked(&it, 1), Some((WaitReason::Circuit, _))));
    assert_eq!(it.exchanger.started(), []);
    assert_eq!(limits.reports.lock().unwrap()[0].trips, 3);
    // The shared state was lost: it is closed, and what was held is let go.
    limits.views.lock().unwrap().clear();
    tokio::time::sleep(ms(10_100)).await;
    // It is old enough to be looked up.
    it.store.state().standings.insert(delivery_id(2), standing(DeliveryState::Queued, 0));
    it.bus.send(message(2, 1));
    it.until("sent", |it| it.exchanger.started().len() == 1).await;
    it.until("told", |it| states(it) == [CircuitState::Closed]).await;
    assert_eq!(holds(&it).last().map(|hold| (hold.hold, hold.trial)), Some((Duration::ZERO, None)));
}

#[tokio::test(start_paused = true)]
async fn the_healthy_and_those_without_a_circuit_are_not_reported() {
    let limits = Arc::new(FakeLimits::default());
    let mut without = destination(2);
    without.spec.circuit.enabled = false;
    let script: Script = Box::new(|outgoing| {
        let code = if outgoing.destination.id == destination_id(1) { 404 } else { 500 };
        (ms(1), Some(status(if outgoing.destination.id == destination_id(3) { 429 } else { code })))
    });
    let destinations = [destination(1), without, destination(3)];
    let it = Harness::with(destinations, script, Settings::default(), Some(limits.clone() as _));
    for delivery in 0..300 {
        it.bus.send(message(delivery, u8::try_from(delivery % 3).unwrap() + 1));
    }
    it.until_all_done().await;
    tokio::time::sleep(ms(1000)).await;
    assert_eq!(limits.reports.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_tells_the_successes_before_it() {
    let limits = Arc::new(FakeLimits::default());
    let script: Script = Box::new(|outgoing| {
        let failure = if outgoing.delivery_id == delivery_id(50) { Answer::Unreachable } else { status(200) };
        (ms(1), Some(failure))
    });
    let it = Harness::with([destination(1)], script, Settings::default(), Some(limits.clone() as _));
    for delivery in 0..=50 {
        it.bus.send(message(delivery, 1));
    }
    it.until("reported", |_| !limits.reports.lock().unwrap().is_empty()).await;
    let report = limits.reports.lock().unwrap()[0].clone();
    assert_eq!((report.successes, report.failures, report.succeeded_last), (50, 1, false));
    assert_eq!(report.reason.as_deref(), Some("no answer"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_long_after_a_success_tells_that_there_was_one() {
    let limits = Arc::new(FakeLimits::default());
    let fails = Arc::new(AtomicBool::new(true));
    let it = Harness::with([destination(1)], failing(&fails), Settings::default(), Some(limits.clone() as _));
    let told = || limits.reports.lock().unwrap().iter().map(|it| (it.successes, it.failures)).collect::<Vec<_>>();
    // Far apart, so that each begins to report again.
    for (delivery, is_failure) in [true, false, true, true].into_iter().enumerate() {
        let delivery = u32::try_from(delivery).unwrap();
        fails.store(is_failure, Ordering::SeqCst);
        it.store.state().standings.insert(delivery_id(delivery), standing(DeliveryState::Queued, 0));
        it.bus.send(message(delivery, 1));
        it.until_all_done().await;
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
    assert_eq!(told(), [(0, 1), (1, 1), (0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_circuit_of_a_destination_that_is_gone_is_forgotten() {
    for is_swept in [false, true] {
        let limits = Arc::new(FakeLimits::default());
        let record = CircuitRecord { state: CircuitState::Open, trips: 1, ..CircuitRecord::default() };
        let open = CircuitView { state: CircuitState::Open, open_for: ms(1000), record: record.clone(), ..closed() };
        limits.views.lock().unwrap().insert(destination_id(1), open);
        let script = always(ms(1), status(500));
        let it = Harness::with([destination(1)], script, Settings::default(), Some(limits.clone() as _));
        let reports = || limits.reports.lock().unwrap().len();
        it.bus.send(message(1, 1));
        it.until("it is asked about again and again", |_| reports() >= 3).await;
        if is_swept {
            it.store.state().destinations.clear();
            it.store.state().standings.insert(delivery_id(2), standing(DeliveryState::Queued, 0));
            it.bus.send(Message { destination_version: 9, ..message(2, 1) });
            it.until_all_done().await;
        } else {
            it.store.change(1, |destination| {
                destination.state = DestinationState::Deleted;
                destination.circuit = record;
            });
        }
        tokio::time::sleep(ms(1000)).await;
        let before = reports();
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!(reports(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_has_its_circuit_tried_within_a_second() {
    let fails = Arc::new(AtomicBool::new(true));
    let mut slow = quick(1);
    slow.spec.circuit.open_ms = 60_000;
    let it = Harness::start([slow], failing(&fails));
    open(&it).await;
    let before = it.elapsed();
    it.store.change(1, |destination| destination.spec.url = "https://new.example/".into());
    it.until("it is tried", |it| states(it).last() == Some(&CircuitState::HalfOpen)).await;
    assert!(it.elapsed() - before < ms(1000));
    assert_eq!(holds(&it).pop().map(|hold| (hold.hold, hold.trial)), Some((Duration::ZERO, NonZeroU32::new(2))));
    // It fails still: it is open, and held, for longer than before.
    for delivery in 100..102 {
        it.bus.send(message(delivery, 1));
    }
    it.until("it opens again", |it| states(it).last() == Some(&CircuitState::Open)).await;
    it.until("it is held", |it| holds(it).pop().is_some_and(|hold| hold.hold > ms(90_000))).await;
    // Once more, and now it is well.
    fails.store(false, Ordering::SeqCst);
    it.store.change(1, |_| {});
    it.until("it is tried", |it| states(it).last() == Some(&CircuitState::HalfOpen)).await;
    for delivery in 200..202 {
        it.bus.send(message(delivery, 1));
    }
    it.until("it closes", |it| states(it).last() == Some(&CircuitState::Closed)).await;
    it.until_all_done().await;
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_be_left_alone_is_told_to_the_store_once() {
    let slow_down = Answer::Status { code: 429, retry_after: Some(Duration::from_secs(30)) };
    let it = Harness::start([destination(1)], always(ms(5), slow_down));
    for delivery in 0..50 {
        it.bus.send(message(delivery, 1));
    }
    it.until_all_done().await;
    it.until("told", |it| !holds(it).is_empty()).await;
    let [hold] = holds(&it)[..] else { panic!("{:?}", holds(&it)) };
    assert_eq!(hold.trial, None);
    assert!((ms(29_000)..=ms(30_000)).contains(&hold.hold), "{hold:?}");
}

/// A dispatcher that knows destination 1 as closed, as it answers with `code`; then its circuit opens elsewhere, and delivery 2
/// comes after `later`.
async fn opened_elsewhere(code: u16, store_away: bool, later: Duration) {
    let limits = Arc::new(FakeLimits::default());
    let it =
        Harness::with([destination(1)], always(ms(1), status(code)), Settings::default(), Some(limits.clone() as _));
    it.bus.send(message(1, 1));
    it.until_all_done().await;
    let record = CircuitRecord { state: CircuitState::Open, trips: 1, ..CircuitRecord::default() };
    it.store.state().destinations.get_mut(&destination_id(1)).unwrap().circuit = record.clone();
    let open = CircuitView { state: CircuitState::Open, open_for: ms(10_000), record, ..closed() };
    limits.views.lock().unwrap().insert(destination_id(1), open);
    it.store.state().is_away = store_away;
    tokio::time::sleep(later).await;
    it.bus.send(message(2, 1));
    // Long enough for one that is not held up.
    tokio::time::sleep(ms(50)).await;
    it.store.state().is_away = false;
    it.until_all_done().await;
    assert!(matches!(parked(&it, 2), Some((WaitReason::Circuit, _))));
    assert_eq!(it.exchanger.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_elsewhere_is_known_within_a_second() {
    opened_elsewhere(200, false, ms(600)).await;
    // Also where we saw it fail, and not enough to open.
    opened_elsewhere(500, false, ms(600)).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_from_the_store_for_long_begins_nothing_before_it_has_heard() {
    opened_elsewhere(200, true, ms(2500)).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_neither_open_a_circuit_nor_end_a_row_of_failures_but_a_probe_takes_them_for_life() {
    let code = Arc::new(AtomicU16::new(500));
    let answer = Arc::clone(&code);
    let script: Script = Box::new(move |_| (ms(5), Some(status(answer.load(Ordering::SeqCst)))));
    let limits = Arc::new(FakeLimits::default());
    let it = Harness::with([quick(1)], script, Settings::default(), Some(limits.clone() as _));
    let reports = || limits.reports.lock().unwrap().clone();
    it.bus.send(message(1, 1));
    it.until("a failure is told", |_| reports().iter().any(|report| report.failures == 1)).await;
    code.store(404, Ordering::SeqCst);
    it.bus.send(message(2, 1));
    it.until_all_done().await;
    let record = CircuitRecord { state: CircuitState::HalfOpen, ..CircuitRecord::default() };
    let half_open = CircuitView { state: CircuitState::HalfOpen, probes_granted: 1, record, ..closed() };
    limits.views.lock().unwrap().insert(destination_id(1), half_open);
    code.store(500, Ordering::SeqCst);
    it.bus.send(message(3, 1));
    it.until("half open", |it| states(it) == [CircuitState::HalfOpen]).await;
    code.store(404, Ordering::SeqCst);
    it.bus.send(message(4, 1));
    it.until("a probe is told", |_| reports().iter().any(|report| report.probes_succeeded == 1)).await;
    let successes: Vec<_> = reports().iter().filter(|report| report.successes > 0).cloned().collect();
    assert!(successes.iter().all(|report| report.probes_succeeded == 1), "{successes:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_up_before_it_is_sent_has_its_turn_again_where_its_circuit_opens() {
    let it = Harness::start([destination(1)], always(ms(5), status(500)));
    it.store.state().event_read_takes = ms(1500);
    it.store.state().events.insert(event(100, b"").id, Arc::new(event(100, b"1")));
    let mut light = message(100, 1);
    light.payload = Payload::ByReference;
    it.bus.send(light);
    open(&it).await;
    it.until("it is given back", |it| !it.store.of(100).is_empty()).await;
    let writes = it.store.of(100);
    assert!(matches!(writes[..], [DeliveryWrite::Park { reason: WaitReason::Turn, claim: None, .. }]), "{writes:?}");
    assert!(it.exchanger.started().iter().all(|started| started.delivery_id != delivery_id(100)));
    it.until_all_done().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_takes_long_is_given_back_where_its_circuit_opens() {
    let it = Harness::start([destination(1)], always(ms(5), status(500)));
    it.store.state().claims_take = ms(900);
    it.bus.send(Message { guarantee: Guarantee::AtMostOnce, ..message(100, 1) });
    open(&it).await;
    assert_eq!(it.store.of(100), [], "it is being claimed");
    it.until("it is given back", |it| it.store.of(100).len() == 2).await;
    let writes = it.store.of(100);
    let [DeliveryWrite::Claim { claim, .. }, DeliveryWrite::Park { claim: given_back, .. }] = writes[..] else {
        panic!("{writes:?}")
    };
    assert_eq!(given_back, Some(claim));
    assert_eq!(it.store.state().claims.get(&delivery_id(100)), None);
    assert!(it.exchanger.started().iter().all(|started| started.delivery_id != delivery_id(100)));
    it.until_all_done().await;
}
