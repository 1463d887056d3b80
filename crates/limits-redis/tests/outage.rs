//! Redis is frozen, killed, and comes back empty. Nothing of ours is restarted.

mod rig;

use std::time::Duration;

use rig::{Rig, answered, hearts, in_one_session, take, until, until_well};
use signalpost_core::{CircuitPolicy, CircuitState, Clock as _, DestinationId};
use signalpost_limits::{CircuitReport, Claimed, Limits as _, LimitsUnavailable, SlotUse};
use signalpost_limits_redis::RedisLimits;
use signalpost_testkit::proxy::Mode;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_by_freezing_costs_one_slow_call_and_heals() {
    let rig = Rig::start().await;
    let limits = rig.limits().await;
    until_well(&limits).await;
    let claim = rig.claim();
    assert_eq!(answered(async || limits.claim(1, &[claim]).await).await, [Claimed::Ours]);

    rig.redis.process.freeze().unwrap();
    let frozen_at = rig.clock.elapsed();
    let report = quiet(&rig);
    let used = SlotUse { destination_id: rig.destination(), max: 9, held: 0, wanted: 30 };
    for _ in 0..200 {
        assert!(limits.claim(2, &[rig.claim()]).await.is_err());
        assert!(limits.renew(2, &[claim]).await.is_err());
        assert!(limits.release(2, &[claim]).await.is_err());
        assert!(limits.check().await.is_err());
        take(&limits, rig.request(1.0, 3, 5)).await;
        assert_eq!(limits.slots(2, &[used]).await.unwrap(), [1], "nobody knows how many there are");
        assert_eq!(limits.circuits(2, std::slice::from_ref(&report)).await.unwrap()[0].state, CircuitState::Closed);
    }
    // 1,400 calls of 50 ms each would have taken 70 s.
    assert!(rig.clock.elapsed() - frozen_at < Duration::from_secs(20), "{:?}", rig.clock.elapsed() - frozen_at);

    rig.redis.process.thaw().unwrap();
    until_well(&limits).await;
    let claim = rig.claim();
    assert_eq!(answered(async || limits.claim(1, &[claim]).await).await, [Claimed::Ours]);
}

/// What Redis keeps of a bucket that it is told of with the next call, whatever that is for.
async fn told(rig: &Rig, limits: &RedisLimits, of: DestinationId) -> String {
    let key = format!("signalpost:tokens:{of}");
    let mut bucket = None;
    until(async || {
        take(limits, rig.request(1.0, 1, 1)).await;
        bucket = rig.ask::<Option<String>>(&["GET", &key]).await;
        bucket.is_some()
    })
    .await;
    bucket.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_in_an_outage_is_told() {
    let rig = Rig::start().await;
    let limits = rig.limits().await;
    until_well(&limits).await;
    let _hearts = hearts(&[&limits], 1);
    let request = rig.request(10.0, 20, 1);
    rig.redis.process.freeze().unwrap();
    until(async || limits.check().await.is_err()).await;
    assert_eq!(take(&limits, request).await, 0, "the others may not know yet");
    let mut used = 0;
    until(async || {
        used += take(&limits, request).await;
        used == 5
    })
    .await;
    rig.redis.process.thaw().unwrap();
    until_well(&limits).await;
    let bucket = told(&rig, &limits, request.destination_id).await;
    assert!(bucket.starts_with("15 "), "{bucket}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_nothing_is_away() {
    for (setting, refusing) in [("min-replicas-to-write", "1"), ("maxmemory", "1")] {
        let rig = Rig::start().await;
        let limits = rig.limits().await;
        until_well(&limits).await;
        let _hearts = hearts(&[&limits], 1);
        until(async || rig.ask::<i64>(&["ZCARD", "signalpost:present"]).await == 1).await;
        let request = rig.request(10.0, 20, 1);
        rig.ask::<()>(&["CONFIG", "SET", setting, refusing]).await;
        let mut used = 0;
        until(async || {
            used += take(&limits, request).await;
            used == 5
        })
        .await;
        rig.ask::<()>(&["CONFIG", "SET", setting, "0"]).await;
        until_well(&limits).await;
        let bucket = told(&rig, &limits, request.destination_id).await;
        assert!(bucket.starts_with("15 "), "{setting}: {bucket}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_data_gives_no_second_burst() {
    let mut rig = Rig::start().await;
    let limits = rig.limits().await;
    until_well(&limits).await;
    let mut request = rig.request(1.0, 1000, 2000);
    // Without Redis, where the machine stood still in the call, there are none: then those of another bucket.
    until(async || {
        request = rig.request(1.0, 1000, 2000);
        take(&limits, request).await == 1000
    })
    .await;
    rig.redis.halt().unwrap();
    until(async || limits.check().await.is_err()).await;
    rig.redis.resume().unwrap();
    let back_at = rig.clock.elapsed();
    until_well(&limits).await;
    let granted = take(&limits, request).await;
    let came = (rig.clock.elapsed() - back_at + Duration::from_secs(1)).as_secs_f64();
    assert!(f64::from(granted) <= came, "{granted} in {came} s");
    // Nor one of a destination that nobody knew: it may be known elsewhere.
    assert!(f64::from(take(&limits, rig.request(1.0, 1000, 2000)).await) <= came);
    until(async || take(&limits, request).await > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_parts_until_everybody_told_what_it_holds() {
    let mut rig = Rig::start().await;
    let (proxy, one) = rig.behind_proxy().await;
    let two = rig.limits().await;
    for limits in [&one, &two] {
        until_well(limits).await;
    }
    let _hearts = hearts(&[&one, &two], 2);
    let used = SlotUse { destination_id: rig.destination(), max: 10, held: 0, wanted: 30 };
    let holds = |held| SlotUse { held, ..used };
    until(async || one.slots(1, &[used]).await.unwrap() == [10]).await;
    proxy.set(Mode::Cut);
    until(async || one.check().await.is_err()).await;
    assert_eq!(one.slots(1, &[holds(10)]).await.unwrap(), [1], "it is new");
    until(async || one.slots(1, &[holds(10)]).await.unwrap() == [5]).await;
    assert_eq!(one.slots(1, &[SlotUse { max: 1, ..used }]).await.unwrap(), [1], "one at least");
    // Redis comes back empty; the first has not told yet that it holds five.
    rig.redis.halt().unwrap();
    until(async || two.check().await.is_err()).await;
    rig.redis.resume().unwrap();
    until_well(&two).await;
    assert_eq!(two.slots(2, &[used]).await.unwrap(), [5]);
    proxy.set(Mode::Open);
    until_well(&one).await;
    assert_eq!(one.slots(1, &[holds(5)]).await.unwrap(), [5]);
    assert_eq!(two.slots(2, &[holds(5)]).await.unwrap(), [5]);
    assert_eq!(one.slots(1, &[SlotUse { wanted: 0, ..used }]).await.unwrap(), [0]);
    // Once that was long enough ago, it is as ever.
    until(async || two.slots(2, &[holds(5)]).await.unwrap() == [10]).await;
}

fn quiet(rig: &Rig) -> CircuitReport {
    CircuitReport {
        destination_id: rig.destination(),
        policy: CircuitPolicy { open_ms: 300_000, ..CircuitPolicy::default() },
        successes: 0,
        failures: 0,
        succeeded_last: false,
        probes_succeeded: 0,
        probes_failed: 0,
        probes_void: 0,
        probes_wanted: 0,
        probe_timeout: Duration::from_secs(20),
        reason: None,
        trips: 0,
        version: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn circuits_go_on_without_redis_and_outlive_its_data() {
    let mut rig = Rig::start().await;
    let (one, two) = (rig.limits().await, rig.limits().await);
    until_well(&one).await;
    until_well(&two).await;
    let (before, during) = (quiet(&rig), quiet(&rig));
    let fails = |report: &CircuitReport| CircuitReport { failures: 20, trips: 3, ..report.clone() };
    let mut known = Vec::new();
    until(async || {
        known = one.circuits(1, &[fails(&before), during.clone()]).await.unwrap();
        known[0].state == CircuitState::Open
    })
    .await;
    assert_eq!(known[1].state, CircuitState::Closed);
    rig.redis.halt().unwrap();
    until(async || one.check().await.is_err()).await;
    let alone = one.circuits(1, &[before.clone(), fails(&during)]).await.unwrap();
    assert_eq!(alone[0].record, known[0].record);
    assert!(alone[0].open_for <= known[0].open_for);
    assert_eq!(alone[1].state, CircuitState::Open, "its own picture");
    rig.redis.resume().unwrap();
    for limits in [&one, &two] {
        until(async || limits.check().await.is_ok()).await;
    }
    // Who knows puts it there, and the other, who did not, takes it over.
    let (mut told, mut heard) = (Vec::new(), Vec::new());
    until(async || {
        told = one.circuits(1, &[before.clone(), during.clone()]).await.unwrap();
        heard = two.circuits(2, &[before.clone(), during.clone()]).await.unwrap();
        told.iter().zip(&heard).all(|(told, heard)| told.record == heard.record)
    })
    .await;
    for (number, (told, heard)) in told.iter().zip(&heard).enumerate() {
        assert_eq!(told.record, alone[number].record);
        assert_eq!(heard.record, told.record);
        assert_eq!(heard.record.trips, 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scripts_are_loaded_again_and_every_key_but_the_mark_expires() {
    struct Seen {
        claimed: Result<Vec<Claimed>, LimitsUnavailable>,
        taken: Vec<u32>,
        slots: Result<Vec<u32>, LimitsUnavailable>,
        /// Each with the milliseconds that it is kept for.
        keys: Vec<(String, i64)>,
        claims: usize,
        claims_after_release: usize,
    }
    let seen = in_one_session(async |rig, limits| {
        limits.set_share(1);
        rig.ask::<()>(&["SCRIPT", "FLUSH"]).await;
        let claims: Vec<_> = (0..600).map(|_| rig.claim()).collect();
        let claimed = limits.claim(1, &claims).await;
        let mut taken = Vec::new();
        for (per_second, burst) in [(0.001, u32::MAX), (100_000.0, 1), (3.7, 12)] {
            taken.push(take(limits, rig.request(per_second, burst, 1)).await);
        }
        let used = SlotUse { destination_id: rig.destination(), max: 3, held: 0, wanted: 1 };
        let slots = limits.slots(1, &[used]).await;
        for failures in [20, 2] {
            limits.circuits(1, &[CircuitReport { failures, ..quiet(rig) }]).await.unwrap();
        }
        until(async || rig.ask::<i64>(&["ZCARD", "signalpost:present"]).await == 1).await;
        let mut keys = Vec::new();
        for key in rig.ask::<Vec<String>>(&["KEYS", "*"]).await {
            let left = rig.ask(&["PTTL", &key]).await;
            keys.push((key, left));
        }
        let claims_left = rig.claims_left().await;
        // What came of it is seen at once.
        let _released = limits.release(1, &claims).await;
        let claims_after_release = rig.claims_left().await;
        Seen { claimed, taken, slots, keys, claims: claims_left, claims_after_release }
    })
    .await;
    assert_eq!(seen.claimed.unwrap(), [Claimed::Ours; 600]);
    assert_eq!(seen.taken, [1, 1, 1]);
    assert_eq!(seen.slots.unwrap(), [1]);
    assert_eq!(seen.claims, 600);
    assert_eq!(seen.keys.iter().filter(|(key, _)| key.starts_with("signalpost:circuit:")).count(), 2);
    for (key, left) in seen.keys {
        // -2: expired between the two commands.
        assert!(left > 0 || left == -2 || key == "signalpost:born", "{key} never expires");
    }
    assert_eq!(seen.claims_after_release, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_at_the_start_is_no_obstacle() {
    let mut rig = Rig::start().await;
    rig.redis.halt().unwrap();
    let limits = rig.limits().await;
    assert!(limits.check().await.is_err());
    rig.redis.resume().unwrap();
    until_well(&limits).await;
}
