//! Redis is frozen, killed, and comes back empty. Nothing of ours is restarted.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use redis::aio::MultiplexedConnection;
use signalpost_core::{Clock, DeliveryId, DestinationId, destination::RateLimit};
use signalpost_limits::{Claim, Claimed, Limits, TokenRequest};
use signalpost_limits_redis::RedisLimits;
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_services::Redis;

const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    clock: Arc<SystemClock>,
    redis: Redis,
    limits: RedisLimits,
}

impl World {
    async fn start() -> Self {
        let redis = tokio::task::spawn_blocking(Redis::start).await.unwrap().unwrap();
        let clock = Arc::new(SystemClock::new());
        let limits = RedisLimits::connect(&redis.url(), Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
        Self { clock, redis, limits }
    }

    async fn until_well(&self) {
        let waiting = async {
            while self.limits.check().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "Redis is reached again");
    }

    fn claim(&self) -> Claim {
        Claim { delivery_id: DeliveryId::new(self.clock.now(), &SystemEntropy), attempt: 1 }
    }

    fn request(&self, per_second: f64, burst: u32, wanted: u32) -> TokenRequest {
        let limit = RateLimit { per_second, burst: NonZeroU32::new(burst) };
        TokenRequest { destination_id: DestinationId::new(self.clock.now(), &SystemEntropy), limit, wanted }
    }

    async fn take(&self, request: TokenRequest) -> u32 {
        self.limits.take_tokens(&[request]).await.unwrap()[0].granted
    }

    async fn direct(&self) -> MultiplexedConnection {
        redis::Client::open(self.redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_by_freezing_costs_one_slow_call_and_heals() {
    let world = World::start().await;
    world.until_well().await;
    let claim = world.claim();
    assert_eq!(world.limits.claim(1, &[claim]).await.unwrap(), [Claimed::Ours]);

    world.redis.process.freeze().unwrap();
    let frozen_at = world.clock.elapsed();
    for _ in 0..200 {
        assert!(world.limits.claim(2, &[world.claim()]).await.is_err());
        assert!(world.limits.renew(2, &[claim]).await.is_err());
        assert!(world.limits.release(2, &[claim]).await.is_err());
        assert!(world.limits.check().await.is_err());
        assert_eq!(world.take(world.request(1.0, 3, 5)).await, 3, "tokens come from this process");
    }
    // 1,000 calls of 50 ms each would have taken 50 s.
    assert!(world.clock.elapsed() - frozen_at < Duration::from_secs(5), "{:?}", world.clock.elapsed() - frozen_at);

    world.redis.process.thaw().unwrap();
    world.until_well().await;
    assert_eq!(world.limits.claim(1, &[world.claim()]).await.unwrap(), [Claimed::Ours]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_loss_of_data_heals_and_keeps_the_promise() {
    let mut world = World::start().await;
    world.until_well().await;
    let request = world.request(40.0, 20, 5);
    let start = world.clock.elapsed();
    let mut sum = 0;
    let mut grants = async |world: &World, time: Duration| {
        let until = world.clock.elapsed() + time;
        while world.clock.elapsed() < until {
            sum += world.take(request).await;
            let allowed = 20.0 + 1.02 * 40.0 * (world.clock.elapsed() - start).as_secs_f64();
            assert!(f64::from(sum) <= allowed, "{sum} of {allowed}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sum
    };
    let moment = Duration::from_millis(300);
    grants(&world, moment).await;
    world.redis.process.freeze().unwrap();
    grants(&world, moment).await;
    world.redis.process.thaw().unwrap();
    world.until_well().await;
    grants(&world, moment).await;
    world.redis.halt().unwrap();
    let before = grants(&world, Duration::ZERO).await;
    assert!(grants(&world, moment).await > before, "deliveries go on without Redis");
    world.redis.resume().unwrap();
    world.until_well().await;
    let before = grants(&world, Duration::ZERO).await;
    assert!(grants(&world, moment).await > before);
    assert_eq!(world.limits.claim(1, &[world.claim()]).await.unwrap(), [Claimed::Ours]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_in_an_outage_is_told_to_the_others() {
    let world = World::start().await;
    let other = RedisLimits::connect(&world.redis.url(), Arc::clone(&world.clock) as Arc<dyn Clock>).await.unwrap();
    world.until_well().await;
    let request = world.request(0.001, 10, 1);
    world.redis.process.freeze().unwrap();
    for _ in 0..6 {
        assert_eq!(world.take(request).await, 1);
    }
    world.redis.process.thaw().unwrap();
    world.until_well().await;
    assert_eq!(world.take(request).await, 1);
    while other.check().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rest = other.take_tokens(&[TokenRequest { wanted: 10, ..request }]).await.unwrap()[0].granted;
    // One token may have been taken twice: by a call that Redis finished after we had given it up.
    assert!((2..=3).contains(&rest), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scripts_are_loaded_again_and_every_key_expires() {
    let world = World::start().await;
    world.until_well().await;
    let mut direct = world.direct().await;
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut direct).await.unwrap();
    let claims: Vec<_> = (0..600).map(|_| world.claim()).collect();
    assert_eq!(world.limits.claim(1, &claims).await.unwrap(), [Claimed::Ours; 600]);
    for (per_second, burst) in [(0.001, u32::MAX), (100_000.0, 1), (3.7, 12)] {
        assert_eq!(world.take(world.request(per_second, burst, 1)).await, 1);
    }
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut direct).await.unwrap();
    assert!(keys.iter().filter(|key| key.starts_with("signalpost:claim:")).count() == 600);
    for key in keys {
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut direct).await.unwrap();
        // -2: expired between the two commands.
        assert!(left > 0 || left == -2, "{key} never expires");
    }
    world.limits.release(1, &claims).await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("signalpost:claim:*").query_async(&mut direct).await.unwrap();
    assert!(keys.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_at_the_start_is_no_obstacle() {
    let mut redis = tokio::task::spawn_blocking(Redis::start).await.unwrap().unwrap();
    redis.halt().unwrap();
    let clock = Arc::new(SystemClock::new());
    let limits = RedisLimits::connect(&redis.url(), Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
    assert!(limits.check().await.is_err());
    redis.resume().unwrap();
    let world = World { clock, redis, limits };
    world.until_well().await;
}
