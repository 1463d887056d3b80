//! The jobs outlive errors, drain and stop.

use std::time::Duration;

use signalpost_retry::Settings;

use crate::fakes::{Fake, START, destination, detached, due};

const SECOND: Duration = Duration::from_secs(1);

/// Every method that a job calls.
const METHODS: &[&str] = &[
    "relay",
    "take_due",
    "give_back",
    "requeue_lost",
    "expand_fan_outs",
    "open_replays",
    "step_replay",
    "sweep_deleted",
    "sweep_tenants",
    "prepare_partitions",
    "retain",
    "sample",
    "destinations",
    "write",
    "check",
];

#[tokio::test(start_paused = true)]
async fn no_error_ends_a_job() {
    let fake = Fake::new();
    {
        let mut state = fake.state();
        state.failures = METHODS.iter().map(|name| (*name, 5)).collect();
        state.consumed_until = Some(START);
        state.publications = [false, false].into();
        state.destinations = vec![destination(1, 4, signalpost_core::DestinationState::Active)];
    }
    let running = fake.start(Settings::default());
    for number in 0..60 {
        {
            let mut state = fake.state();
            let id = signalpost_core::ReplayId::from_parts(START, [1; 10]);
            let tenant_id = signalpost_core::TenantId::DEFAULT;
            let replay = signalpost_store::schedule::OpenReplay { id, tenant_id, rate_per_second: None };
            state.replays = vec![(replay, 1)];
            state.due.push((Duration::ZERO, detached(2 * number, 1, 1)));
            state.due.push((Duration::ZERO, due(2 * number + 1, 1)));
            // The bus fails now and then, so that leases are given back.
            if number % 4 == 0 {
                state.publications.push_back(false);
            }
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(!running.task.is_finished());
    let left = fake.state().failures.values().copied().collect::<Vec<_>>();
    assert!(left.iter().all(|left| *left == 0), "{:?}", fake.state().failures);
    for name in METHODS {
        assert!(fake.calls(name).len() > 5, "{name} works again after its errors");
    }
    assert!(!fake.published().is_empty() && !fake.state().writes.is_empty());
    running.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_asked_at_a_bounded_pace_and_soon_after_its_return() {
    let fake = Fake::new();
    fake.state().failures = METHODS.iter().map(|name| (*name, usize::MAX)).collect();
    let running = fake.start(Settings::default());
    tokio::time::sleep(60 * SECOND).await;
    for name in ["relay", "take_due", "expand_fan_outs"] {
        let asked = fake.calls(name).len();
        assert!((25..=45).contains(&asked), "{name}: {asked} times in a minute");
    }
    fake.state().failures.clear();
    fake.state().due = vec![(Duration::ZERO, due(0, 1))];
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(fake.published().len(), 1);
    running.drain().await;
}

#[tokio::test(start_paused = true)]
async fn one_job_that_hangs_does_not_hold_up_the_others_and_the_second_step_stops_it() {
    let fake = Fake::new();
    fake.state().hanging = vec!["retain", "sweep_deleted"];
    let running = fake.start(Settings::default());
    fake.state().due = vec![(SECOND, due(0, 1))];
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(fake.published().len(), 1);
    running.shutdown.drain();
    tokio::time::sleep(SECOND).await;
    assert!(!running.task.is_finished(), "a step is not cancelled by a drain");
    running.shutdown.stop();
    let ended = tokio::time::timeout(SECOND, running.task).await;
    assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn equal_histories_give_equal_calls() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let fake = Fake::new();
        {
            let mut state = fake.state();
            state.due = (0..50).map(|n| (Duration::from_millis(u64::from(n) * 13), due(n, 1))).collect();
            state.outbox = 3;
            state.fan_outs = 1200;
            state.lost = 10;
            state.consumed_until = Some(START);
            state.failures.insert("take_due", 2);
        }
        fake.run_for(Settings::default(), 3 * SECOND).await;
        let published = fake.published().len();
        runs.push((fake.state().calls.clone(), published));
    }
    assert_eq!(runs[0], runs[1]);
}
