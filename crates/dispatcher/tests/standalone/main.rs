//! The dispatcher on the ports of standalone: SQLite, the bus in memory, the real sender, a receiver that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod rig;

use std::time::Duration;

use rig::{Rig, secs};
use signalpost_core::{
    AttemptOutcome, CircuitState, DeadReason, DeliveryState, Guarantee, WaitReason, destination::RateLimit,
    ordering::OrderingMode, retry_policy::Strategy,
};
use signalpost_receiver::{Failure, Faults, Verdict};
use signalpost_store::{ManageStore as _, manage::DestinationUpdate};

const fn exponential(initial_ms: u64, max_attempts: u32) -> Strategy {
    Strategy::Exponential {
        initial_ms,
        factor: 1.5,
        max_ms: 2000,
        max_attempts: std::num::NonZeroU32::new(max_attempts),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_delivery_arrives_once_and_signed() {
    let mut rig = Rig::new().await;
    let destination = rig.destination("/hook", |_| {}).await;
    rig.start();
    let deliveries = rig.accept(destination, 1000).await;
    rig.receiver.wait_for_events(1000, secs(30)).await.unwrap();
    rig.until_ended(&deliveries).await;
    for id in &deliveries {
        let delivery = rig.delivery(*id).await;
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
    }
    assert!(rig.receiver.requests_by_event().values().all(|count| *count == 1));
    assert!(rig.receiver.received().iter().all(|received| received.verdict == Verdict::Valid));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_tried_again_until_they_succeed() {
    let mut rig = Rig::new().await;
    rig.receiver.set_faults(Faults::first(2, Failure::status(503)));
    let destination = rig
        .destination("/hook", |spec| {
            spec.retry.strategy = exponential(20, 5);
            // Two of three attempts fail.
            spec.circuit.enabled = false;
        })
        .await;
    rig.start();
    let deliveries = rig.accept(destination, 50).await;
    rig.until_ended(&deliveries).await;
    for id in &deliveries {
        assert_eq!(rig.delivery(*id).await.state, DeliveryState::Delivered);
        let attempts = rig.attempts(*id).await;
        let told: Vec<_> =
            attempts.iter().map(|attempt| (attempt.number, attempt.outcome, attempt.status_code)).collect();
        assert_eq!(
            told,
            [
                (1, AttemptOutcome::Retry, Some(503)),
                (2, AttemptOutcome::Retry, Some(503)),
                (3, AttemptOutcome::Delivered, Some(200))
            ]
        );
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_failure_makes_a_dead_letter() {
    let mut rig = Rig::new().await;
    rig.receiver.set_faults(Faults::always(Failure::Reset));
    let destination = rig.destination("/hook", |spec| spec.retry.strategy = exponential(10, 3)).await;
    rig.start();
    let deliveries = rig.accept(destination, 3).await;
    rig.until_ended(&deliveries).await;
    for id in &deliveries {
        let delivery = rig.delivery(*id).await;
        assert_eq!(
            (delivery.state, delivery.reason, delivery.attempts),
            (DeliveryState::Dead, Some(DeadReason::Exhausted), 3)
        );
        let attempts = rig.attempts(*id).await;
        assert!(
            attempts.iter().all(|attempt| attempt.status_code.is_none() && attempt.error.is_some()),
            "{attempts:?}"
        );
    }
    assert_eq!(rig.dead_letters().await.len(), 3);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_keeps_what_waits_and_a_resume_sends_it() {
    let mut rig = Rig::new().await;
    // Some still wait here when the pause comes, however late that is.
    rig.settings.max_wait = secs(60);
    let destination = rig
        .destination("/hook", |spec| {
            spec.rate_limit = Some(RateLimit { per_second: 5.0, burst: std::num::NonZeroU32::new(1) });
        })
        .await;
    rig.start();
    let deliveries = rig.accept(destination, 16).await;
    rig.receiver.wait_for(1, secs(10)).await.unwrap();
    rig.store.set_paused(rig::TENANT, destination, true).await.unwrap().unwrap();
    // A request may have started before the answer to the pause; none starts after, in the time of three tokens.
    let id = *deliveries.last().unwrap();
    rig.until("it waits", async |rig| matches!(rig.delivery(id).await.waiting, Some((_, WaitReason::Paused)))).await;
    let before = rig.receiver.stats().requests;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(rig.receiver.stats().requests, before);
    rig.store.set_paused(rig::TENANT, destination, false).await.unwrap().unwrap();
    rig.until_ended(&deliveries).await;
    assert!(rig.receiver.requests_by_event().values().all(|count| *count == 1));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_url_holds_for_every_request_after_its_answer() {
    let mut rig = Rig::new().await;
    let destination = rig.destination("/old", |spec| spec.max_in_flight = std::num::NonZeroU32::MIN).await;
    rig.start();
    let deliveries = rig.accept(destination, 400).await;
    rig.receiver.wait_for(20, secs(10)).await.unwrap();
    let known = rig.get_destination(destination).await;
    let mut spec = known.spec.clone();
    spec.url = rig.receiver.url("/new");
    let update = DestinationUpdate { spec: &spec, secrets: &known.secrets };
    rig.store.update_destination(rig::TENANT, destination, known.version, update).await.unwrap().unwrap();
    let before = rig.receiver.stats().requests;
    rig.until_ended(&deliveries).await;
    let old = rig.receiver.received().iter().filter(|received| received.path == "/old").count();
    // The one that was out when the answer came.
    assert!(u64::try_from(old).unwrap() <= before + 1, "{old} requests to the old URL, {before} before the answer");
    assert_eq!(rig.receiver.stats().accepted, 400);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_holds_through_waiting_and_feeding() {
    let mut rig = Rig::new().await;
    let rate = 40.0;
    let destination = rig
        .destination("/hook", |spec| {
            spec.rate_limit = Some(RateLimit { per_second: rate, burst: std::num::NonZeroU32::new(4) });
        })
        .await;
    rig.start();
    let deliveries = rig.accept(destination, 200).await;
    rig.until_ended(&deliveries).await;
    let mut times: Vec<_> = rig.receiver.received().iter().map(|received| received.at).collect();
    times.sort();
    assert_eq!(times.len(), 200);
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            // A request is seen where it ends: what the way there may take is added to the time.
            let t = to.since(*from) + Duration::from_millis(150);
            let most = 4.0 + 1.02 * rate * t.as_secs_f64();
            assert!((last - first + 1) as f64 <= most, "{} requests in {t:?}", last - first + 1);
        }
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_destination_does_not_slow_another() {
    let mut rig = Rig::new().await;
    rig.receiver.set_faults_at("/slow", Some(Faults::always(Failure::Hang)));
    let slow = rig.destination("/slow", |spec| spec.timeout_ms = 30_000).await;
    let fast = rig.destination("/fast", |_| {}).await;
    rig.start();
    rig.accept(slow, 3000).await;
    let deliveries = rig.accept(fast, 300).await;
    let started = tokio::time::Instant::now();
    rig.until_ended(&deliveries).await;
    assert!(started.elapsed() < secs(10), "{:?}", started.elapsed());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_process_dies_is_recorded_as_interrupted_and_made_again() {
    let mut rig = Rig::new().await;
    rig.settings.detach_after = Duration::from_millis(100);
    rig.settings.detach_grace = Duration::from_millis(200);
    rig.receiver.set_faults(Faults::always(Failure::Hang));
    // None ends by itself while they are looked at, however slow this machine is.
    let destination = rig.destination("/hook", |spec| spec.timeout_ms = 5000).await;
    rig.start();
    let deliveries = rig.accept(destination, 5).await;
    rig.until("all are detached", async |rig| {
        for id in &deliveries {
            if !matches!(rig.delivery(*id).await.waiting, Some((_, WaitReason::InFlight))) {
                return false;
            }
        }
        true
    })
    .await;
    rig.stop().await;
    rig.receiver.set_faults(Faults::none());
    rig.start();
    rig.until_ended(&deliveries).await;
    for id in &deliveries {
        let told: Vec<_> = rig.attempts(*id).await.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
        assert_eq!(told, [(1, AttemptOutcome::Interrupted), (2, AttemptOutcome::Delivered)]);
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_the_middle_lose_nothing_and_repeat_nothing() {
    let mut rig = Rig::new().await;
    rig.receiver.set_faults(Faults::none().with_latency(Duration::from_millis(5)));
    let destination =
        rig.destination("/hook", |spec| spec.max_in_flight = std::num::NonZeroU32::new(20).unwrap()).await;
    rig.start();
    let deliveries = rig.accept(destination, 2000).await;
    for count in [200, 600, 1200] {
        rig.receiver.wait_for(count, secs(30)).await.unwrap();
        rig.drain().await;
        rig.start();
    }
    rig.until_ended(&deliveries).await;
    let requests = rig.receiver.requests_by_event();
    assert_eq!(requests.len(), 2000);
    assert!(requests.values().all(|count| *count == 1));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_keep_their_order_through_failures_and_restarts() {
    let mut rig = Rig::new().await;
    rig.receiver.set_faults(Faults::first(1, Failure::status(503)).with_latency(Duration::from_millis(2)));
    let destination = rig
        .destination("/hook", |spec| {
            spec.ordering.mode = OrderingMode::Key;
            spec.retry.strategy = exponential(10, 20);
            spec.circuit.enabled = false;
        })
        .await;
    rig.start();
    let deliveries = rig.accept_in_lanes(destination, 400, 20).await;
    for count in [100, 300] {
        rig.receiver.wait_for(count, secs(60)).await.unwrap();
        rig.drain().await;
        rig.start();
    }
    rig.until_ended(&deliveries).await;
    // Of each lane: no delivery is seen before the one before it was accepted.
    let mut seen = vec![Vec::new(); 20];
    for received in rig.receiver.received() {
        let number = Rig::number(&received.body);
        seen[number % 20].push(number);
    }
    for (lane, numbers) in seen.iter().enumerate() {
        assert!(numbers.is_sorted(), "lane {lane}: {numbers:?}");
        assert_eq!(numbers.len(), 40, "lane {lane}: each failed once, and arrived: {numbers:?}");
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_is_one_request_through_a_death() {
    let mut rig = Rig::new().await;
    rig.settings.detach_grace = Duration::from_millis(500);
    rig.receiver.set_faults(Faults::none().with_latency(Duration::from_millis(20)));
    let destination = rig
        .destination("/hook", |spec| {
            spec.guarantee = Guarantee::AtMostOnce;
            // So that no request fails because this machine stood still.
            spec.timeout_ms = 5000;
            spec.max_in_flight = std::num::NonZeroU32::new(10).unwrap();
        })
        .await;
    rig.start();
    let deliveries = rig.accept(destination, 300).await;
    rig.receiver.wait_for(100, secs(30)).await.unwrap();
    rig.stop().await;
    rig.start();
    rig.until_ended(&deliveries).await;
    assert!(rig.receiver.requests_by_event().values().all(|count| *count == 1));
    let mut unknown = 0;
    for id in &deliveries {
        let delivery = rig.delivery(*id).await;
        assert_eq!(delivery.attempts, 1);
        match (delivery.state, delivery.reason) {
            (DeliveryState::Delivered, None) => {}
            (DeliveryState::Dead, Some(DeadReason::UnknownOutcome)) => unknown += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(unknown <= 10, "no more than were out: {unknown}");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_opens_costs_no_attempts_and_closes_again() {
    let mut rig = Rig::new().await;
    rig.receiver.set_faults(Faults::always(Failure::status(500)));
    let destination = rig
        .destination("/hook", |spec| {
            spec.circuit.open_ms = 500;
            spec.circuit.max_open_ms = 500;
            spec.retry.strategy = exponential(50, 50);
        })
        .await;
    rig.start();
    let deliveries = rig.accept(destination, 300).await;
    rig.until("it is open", async |rig| rig.get_destination(destination).await.circuit.state == CircuitState::Open)
        .await;
    let opened = async |rig: &Rig, trips| rig.get_destination(destination).await.circuit.trips >= trips;
    rig.until("what was out has ended", async |rig| opened(rig, 2).await).await;
    let before = rig.receiver.stats().requests;
    rig.until("it opens six times more", async |rig| opened(rig, 8).await).await;
    let tried = rig.receiver.stats().requests - before;
    assert!(tried <= 40, "a few each time: {tried}");
    rig.receiver.set_faults(Faults::none());
    rig.until_ended(&deliveries).await;
    rig.until("it is closed", async |rig| rig.get_destination(destination).await.circuit.state == CircuitState::Closed)
        .await;
    rig.drain().await;
}
