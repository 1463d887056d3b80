//! Relay, reconciler, fan-outs, replays: when they look, and for what.

use std::time::Duration;

use signalpost_core::{ReplayId, TenantId};
use signalpost_retry::Settings;
use signalpost_store::schedule::OpenReplay;

use crate::fakes::{Call, Fake, START, due};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn times(calls: &[Call]) -> Vec<u128> {
    calls.iter().map(|call| call.at.as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_relay_takes_old_records_and_goes_on_while_there_are_more() {
    let fake = Fake::new();
    fake.state().outbox = 450;
    fake.run_for(Settings::default(), 2500 * MILLI).await;
    let calls = fake.calls("relay");
    assert_eq!(times(&calls), [0, 0, 0, 0, 0, 0, 1000, 2000]);
    assert!(calls.iter().all(|call| call.numbers[0] == 10_000), "{calls:?}");
    let most = calls.iter().map(|call| call.numbers[1]).collect::<Vec<_>>();
    assert_eq!(most, [16, 32, 64, 128, 200, 200, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn the_relay_takes_no_more_at_once_than_the_store_can_do() {
    let fake = Fake::new();
    fake.state().outbox = 1000;
    fake.state().relay_bears = Some(20);
    fake.run_for(Settings::default(), 60 * SECOND).await;
    assert_eq!(fake.state().outbox, 0);
}

#[tokio::test(start_paused = true)]
async fn with_a_bus_in_memory_the_relay_first_takes_what_the_last_process_left() {
    let fake = Fake::new();
    fake.state().consumed_until = Some(START - 70 * MILLI);
    fake.state().outbox = 250;
    fake.state().failures.insert("relay", 1);
    fake.run_for(Settings::standalone(), 1500 * MILLI).await;
    let older_than = fake.calls("relay").iter().map(|call| call.numbers[0]).collect::<Vec<_>>();
    // 100 ms more, to tell the records of the last process from those of this one. It fails, is repeated 100 ms later (the process is older by as much), and then takes by age alone.
    assert_eq!(older_than, [170, 270, 270, 270, 270, 270, 270, 10_000]);
}

#[tokio::test(start_paused = true)]
async fn what_the_relay_anchors_is_fed_at_once() {
    let fake = Fake::new();
    let running = fake.start(Settings::default());
    tokio::time::sleep(1950 * MILLI).await;
    fake.state().outbox = 1;
    tokio::time::sleep(50 * MILLI + MILLI).await;
    let feeds = times(&fake.calls("take_due"));
    assert!(feeds.iter().filter(|at| **at == 2000).count() >= 1, "{feeds:?}");
    running.drain().await;
    assert_eq!(*times(&fake.calls("relay")).last().unwrap(), 2000);
}

#[tokio::test(start_paused = true)]
async fn the_reconciler_stays_behind_both_the_bus_and_the_store() {
    let fake = Fake::new();
    fake.state().lost = 2500;
    // A bus whose clock is ahead.
    fake.state().consumed_until = Some(START + 3600 * SECOND);
    let running = fake.start(Settings::default());
    tokio::time::sleep(SECOND).await;
    fake.state().consumed_until = None;
    tokio::time::sleep(10 * SECOND).await;
    fake.state().consumed_until = Some(START - 30 * SECOND);
    tokio::time::sleep(5 * SECOND).await;
    running.drain().await;
    let calls = fake.calls("requeue_lost");
    let until = calls.iter().map(|call| (call.at.as_secs(), call.numbers[0])).collect::<Vec<_>>();
    assert_eq!(until, [(0, -15_000), (0, -15_000), (0, -15_000), (15, -45_000)], "and none while it is not known");
}

#[tokio::test(start_paused = true)]
async fn with_a_bus_in_memory_all_that_was_queued_before_the_start_is_anchored_at_once() {
    let fake = Fake::new();
    fake.state().consumed_until = Some(START - MILLI);
    fake.state().lost = 3000;
    fake.run_for(Settings::standalone(), 10 * MILLI).await;
    assert_eq!(fake.state().lost, 0);
    assert!(fake.calls("requeue_lost").iter().all(|call| call.numbers[0] == -1), "no margin");
}

#[tokio::test(start_paused = true)]
async fn a_large_fan_out_is_expanded_without_pause() {
    let fake = Fake::new();
    fake.state().fan_outs = 10_500;
    fake.run_for(Settings::default(), 10 * MILLI).await;
    assert_eq!(fake.state().fan_outs, 0);
    assert_eq!(fake.calls("expand_fan_outs").len(), 12);
}

fn replay(number: u8, rate_per_second: Option<f64>) -> OpenReplay {
    OpenReplay { id: ReplayId::from_parts(START, [number; 10]), tenant_id: TenantId::DEFAULT, rate_per_second }
}

#[tokio::test(start_paused = true)]
async fn replays_keep_their_rates_and_go_on_side_by_side() {
    let fake = Fake::new();
    let plenty = 1_000_000;
    fake.state().replays =
        vec![(replay(1, Some(40.0)), plenty), (replay(2, Some(0.5)), plenty), (replay(3, None), 20_000)];
    let running = fake.start(Settings::default());
    tokio::time::sleep(10 * MILLI).await;
    assert_eq!(fake.state().replays[2].1, 0, "the one without a rate runs without pause");
    tokio::time::sleep(20 * SECOND).await;
    let created = |index: usize| plenty - fake.state().replays[index].1;
    let (fast, slow) = (created(0), created(1));
    assert!((780..=801).contains(&fast), "40 a second for 20 s: {fast}");
    assert!((10..=11).contains(&slow), "one in two seconds for 20 s, and the first at once: {slow}");
    running.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_that_of_all_processes_together() {
    let fake = Fake::new();
    let plenty = 1_000_000;
    fake.state().replays = vec![(replay(1, Some(40.0)), plenty), (replay(2, Some(10_000.0)), plenty)];
    let both = [fake.start(Settings::default()), fake.start(Settings::default())];
    tokio::time::sleep(20 * SECOND).await;
    let created = |index: usize| plenty - fake.state().replays[index].1;
    let (slow, fast) = (created(0), created(1));
    assert!((780..=801).contains(&slow), "40 a second for 20 s: {slow}");
    assert!((195_000..=200_001).contains(&fast), "more in a tick than a chunk: {fast}");
    for running in both {
        running.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_steps_fail_does_not_hold_up_the_others() {
    let fake = Fake::new();
    fake.state().replays = vec![(replay(1, None), 10), (replay(2, None), 20_000)];
    fake.state().broken_replay = Some(replay(1, None).id);
    fake.run_for(Settings::default(), 120 * SECOND).await;
    let left = fake.state().replays.iter().map(|(_, left)| *left).collect::<Vec<_>>();
    assert_eq!(left, [10, 0]);
}

#[tokio::test(start_paused = true)]
async fn housekeeping_runs_at_the_start_and_hourly() {
    let fake = Fake::new();
    fake.state().due = vec![(Duration::ZERO, due(0, 1))];
    let settings = Settings { feed_poll: SECOND, fan_out_every: SECOND, replay_every: SECOND, ..Settings::default() };
    fake.run_for(settings, 3601 * SECOND).await;
    for name in ["prepare_partitions", "retain"] {
        assert_eq!(times(&fake.calls(name)), [0, 3_600_000], "{name}");
    }
    assert_eq!(fake.calls("prepare_partitions")[0].numbers, [7]);
    assert_eq!(fake.calls("sample").len(), 1801);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_tenant_is_removed_in_chunks_with_pauses() {
    let fake = Fake::new();
    fake.state().doomed_rows = 2_500;
    let _running = fake.start(Settings::default());
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    assert_eq!(fake.state().doomed_rows, 0);
    assert_eq!(times(&fake.calls("sweep_tenants")), [0, 200, 400, 600, 1_600]);
}

#[tokio::test(start_paused = true)]
async fn destinations_that_fail_for_too_long_are_disabled_each_minute_in_chunks() {
    let fake = Fake::new();
    fake.state().failing = 250;
    fake.run_for(Settings::default(), 61 * SECOND).await;
    assert_eq!(fake.state().failing, 0);
    assert_eq!(times(&fake.calls("disable_failing")), [0, 0, 0, 60_000]);
}
