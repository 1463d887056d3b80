//! The promise of a limit, over two dispatchers: in any t seconds at most `burst + 1.02 × rate × t`, whatever Redis and the way to
//! it do. And how often Redis is asked for it.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod rig;

use std::{sync::Mutex, time::Duration};

use rig::{Rig, hearts, in_one_session, take, until, until_well};
use signalpost_core::{Clock as _, DestinationId};
use signalpost_limits::{Limits as _, TokenRequest};
use signalpost_limits_redis::RedisLimits;
use signalpost_testkit::proxy::Mode;

/// How long a token may lie in reserve between being taken and being granted.
const RESERVED: f64 = 0.025;

/// So many tokens, which are ready at a moment between these two: so long after the call that granted them began, and after
/// it ended. Who: the number of the dispatcher.
#[derive(Debug, Clone, Copy)]
struct Grant {
    who: usize,
    began: Duration,
    ended: Duration,
    tokens: u32,
}

/// Always wants more.
async fn hungry(rig: &Rig, who: usize, limits: &RedisLimits, request: TokenRequest, grants: &Mutex<Vec<Grant>>) {
    loop {
        let began = rig.clock.elapsed();
        let grant = limits.take_tokens(&[request]).await.unwrap()[0];
        let ended = rig.clock.elapsed();
        {
            let mut grants = grants.lock().unwrap();
            if grant.ready > 0 {
                grants.push(Grant { who, began, ended, tokens: grant.ready });
            }
            for later in grant.ready_in().skip(usize::try_from(grant.ready).unwrap()) {
                grants.push(Grant { who, began: began + later, ended: ended + later, tokens: 1 });
            }
        }
        tokio::time::sleep(grant.retry_after.clamp(Duration::from_millis(1), Duration::from_millis(100))).await;
    }
}

/// Every window between two grants, whenever between its moments it was ready.
fn check_promise(grants: &[Grant], burst: f64, rate: f64) {
    for (number, first) in grants.iter().enumerate() {
        let (mut sum, mut began, mut ended) = (0.0, first.began, first.ended);
        for grant in &grants[number..] {
            sum += f64::from(grant.tokens);
            (began, ended) = (began.min(grant.began), ended.max(grant.ended));
            let time = (ended - began).as_secs_f64();
            let allowed = burst + 1.02 * rate * time + rate * RESERVED;
            assert!(sum <= allowed, "{sum} of {allowed} in {time} s, from {began:?} on");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promise_holds_over_two_dispatchers_through_every_outage() {
    let mut rig = Rig::start().await;
    let (proxy, one) = rig.behind_proxy().await;
    let (other_proxy, two) = rig.behind_proxy().await;
    for limits in [&one, &two] {
        until_well(limits).await;
    }
    let _hearts = hearts(&[&one, &two], 2);
    let request = rig.request(200.0, 10, 10);
    let grants: Mutex<Vec<Grant>> = Mutex::default();
    // What happens, and for how long it stays so.
    let seconds = Duration::from_secs;
    let script = async |rig: &Rig| {
        // Each knows its part by then.
        tokio::time::sleep(seconds(5)).await;
        let of_both = |from: usize| {
            let grants = grants.lock().unwrap();
            [0, 1].map(|who| {
                grants[from..].iter().filter(|grant| grant.who == who).map(|grant| grant.tokens).sum::<u32>()
            })
        };
        for mode in [Mode::Slow(Duration::from_millis(60)), Mode::Cut, Mode::Silent] {
            proxy.set(mode);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let from = grants.lock().unwrap().len();
            tokio::time::sleep(seconds(2)).await;
            // Cut off from each other, both go on.
            assert!(of_both(from).iter().all(|tokens| *tokens > 10), "{mode:?} {:?}", of_both(from));
            proxy.set(Mode::Open);
            until_well(&one).await;
            tokio::time::sleep(seconds(1)).await;
        }
        rig.redis.process.freeze().unwrap();
        tokio::time::sleep(seconds(3)).await;
        rig.redis.process.thaw().unwrap();
        tokio::time::sleep(seconds(2)).await;
    };
    let (first, second) = (hungry(&rig, 0, &one, request, &grants), hungry(&rig, 1, &two, request, &grants));
    tokio::select! {
        () = async { tokio::join!(first, second); } => {}
        () = script(&rig) => {}
    }
    // Gone for a while, then back and empty.
    for (stay, resume) in [(seconds(4), true), (seconds(2), false)] {
        if resume {
            rig.redis.halt().unwrap();
        } else {
            rig.redis.resume().unwrap();
        }
        let (first, second) = (hungry(&rig, 0, &one, request, &grants), hungry(&rig, 1, &two, request, &grants));
        tokio::select! {
            () = async { tokio::join!(first, second); } => {}
            () = tokio::time::sleep(stay) => {}
        }
    }
    until_well(&one).await;
    until_well(&two).await;
    drop(other_proxy);
    let mut grants = grants.into_inner().unwrap();
    grants.sort_by_key(|grant| grant.ended);
    check_promise(&grants, 10.0, 200.0);
    let all: u32 = grants.iter().map(|grant| grant.tokens).sum();
    assert!(all > 1000, "{all}");
}

/// How often Redis ran a script.
async fn calls(rig: &Rig) -> u64 {
    let text: String = rig.ask(&["INFO", "commandstats"]).await;
    let line = text.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
    let count = line.split_once("calls=").and_then(|(_, rest)| rest.split_once(','));
    count.map_or(0, |(count, _)| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_asked_far_less_often_than_there_are_deliveries() {
    let rig = Rig::start().await;
    let limits = rig.limits().await;
    until_well(&limits).await;

    // More than its 2,000 per second wait all the time.
    let request = rig.request(2000.0, 200, 100);
    let before = calls(&rig).await;
    let mut granted = 0;
    until(async || {
        let grant = limits.take_tokens(&[request]).await.unwrap()[0];
        granted += grant.granted;
        tokio::time::sleep(grant.retry_after).await;
        granted >= 4000
    })
    .await;
    let asked = calls(&rig).await - before;
    assert!(asked * 20 <= u64::from(granted), "asked {asked} times for {granted} tokens");

    // They come one after the other, two in a millisecond, within the limit.
    let request = rig.request(4000.0, 400, 1);
    let before = calls(&rig).await;
    let mut granted = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    // What did not come while the machine stood still does not come all at once.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while granted < 4000 {
        tick.tick().await;
        for _ in 0..2 {
            granted += take(&limits, request).await;
        }
    }
    let asked = calls(&rig).await - before;
    assert!(asked * 5 <= u64::from(granted), "asked {asked} times for {granted} tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_in_advance_and_not_used_is_given_back() {
    const PER_SECOND: f64 = 4000.0;
    let (in_advance, missing) = in_one_session(async |rig, limits| {
        let mut seen = (0.0, 0.0);
        until(async || {
            // So many at once that the bucket is not full, and forgotten, again for half a minute.
            let one = rig.request(PER_SECOND, 1_000_000, 1);
            assert_eq!(take(limits, TokenRequest { wanted: 100_000, ..one }).await, 100_000);
            let first = bucket(rig, one.destination_id).await;
            assert_eq!(take(limits, one).await, 1);
            let second = bucket(rig, one.destination_id).await;
            let in_advance = first.taken_until(second, PER_SECOND) - 1.0;
            // Until nothing was used of late: then nothing is taken in advance with the next.
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(take(limits, one).await, 1);
            let third = bucket(rig, one.destination_id).await;
            seen = (in_advance, second.taken_until(third, PER_SECOND) - 1.0 + in_advance);
            // On a machine that stood still none were taken in advance, or they were forgotten: after a second.
            in_advance > 0.5 && third.at - first.at < 1_000_000.0
        })
        .await;
        seen
    })
    .await;
    assert!(missing.abs() < 0.01, "{missing} of {in_advance} tokens were not given back");
}

/// What Redis keeps of a bucket.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    /// When it had them, by the clock of Redis, in microseconds.
    at: f64,
}

impl Bucket {
    /// How many were taken from here to a later moment.
    fn taken_until(self, later: Self, per_second: f64) -> f64 {
        self.tokens + (later.at - self.at) * per_second / 1_000_000.0 - later.tokens
    }
}

async fn bucket(rig: &Rig, of: DestinationId) -> Bucket {
    let kept: String = rig.ask(&["GET", &format!("signalpost:tokens:{of}")]).await;
    let (tokens, at) = kept.split_once(' ').unwrap();
    Bucket { tokens: tokens.parse().unwrap(), at: at.parse().unwrap() }
}
