//! A Redis of one's own, and dispatchers that reach it through proxies.

#![allow(clippy::unwrap_used, dead_code, reason = "what fails in a helper fails the test; each test uses a part")]

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{FromRedisValue, InfoDict, aio::MultiplexedConnection};
use signalpost_core::{Clock, DeliveryId, DestinationId, destination::RateLimit};
use signalpost_limits::{Claim, Limits as _, LimitsUnavailable, TokenRequest};
use signalpost_limits_redis::RedisLimits;
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_services::Redis;
use signalpost_testkit::proxy::Proxy;
use tokio::task::JoinSet;

pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Rig {
    pub clock: Arc<SystemClock>,
    pub redis: Redis,
    /// How often we asked Redis ourselves, each time on a connection of its own.
    asked: AtomicU64,
}

impl Rig {
    /// A Redis whose data were begun long ago.
    pub async fn start() -> Self {
        // In the test's own thread: Redis ends with the thread that started it, and those of a pool end when they are idle.
        let redis = Redis::start().unwrap();
        let rig = Self { clock: Arc::new(SystemClock::new()), redis, asked: AtomicU64::new(0) };
        rig.ask::<()>(&["SET", "signalpost:born", "0"]).await;
        rig
    }

    pub async fn limits(&self) -> Arc<RedisLimits> {
        self.limits_at(&self.redis.url()).await
    }

    /// Limits that reach Redis through a proxy.
    pub async fn behind_proxy(&self) -> (Proxy, Arc<RedisLimits>) {
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], self.redis.port()))).await.unwrap();
        let limits = self.limits_at(&format!("redis://{}", proxy.addr())).await;
        (proxy, limits)
    }

    async fn limits_at(&self, url: &str) -> Arc<RedisLimits> {
        Arc::new(RedisLimits::connect(url, Arc::clone(&self.clock) as Arc<dyn Clock>).await.unwrap())
    }

    pub fn destination(&self) -> DestinationId {
        DestinationId::new(self.clock.now(), &SystemEntropy)
    }

    pub fn claim(&self) -> Claim {
        Claim { delivery_id: DeliveryId::new(self.clock.now(), &SystemEntropy), attempt: 1 }
    }

    /// The claims in all hashes.
    pub async fn claims_left(&self) -> usize {
        let mut left = 0;
        for hash in self.ask::<Vec<String>>(&["KEYS", "signalpost:claims:*"]).await {
            // One entry is none.
            left += self.ask::<usize>(&["HLEN", &hash]).await.saturating_sub(1);
        }
        left
    }

    pub fn request(&self, per_second: f64, burst: u32, wanted: u32) -> TokenRequest {
        let limit = RateLimit { per_second, burst: NonZeroU32::new(burst) };
        TokenRequest { destination_id: self.destination(), limit, wanted }
    }

    /// How many connections limits have made to Redis.
    async fn sessions(&self) -> u64 {
        let info: InfoDict = self.ask(&["INFO", "stats"]).await;
        info.get::<u64>("total_connections_received").unwrap() - self.asked.load(Ordering::Relaxed)
    }

    /// Asks Redis itself.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut direct: MultiplexedConnection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut direct).await.unwrap()
    }
}

/// What is seen of limits and a Redis that is there all the while. Where a call took longer than it may, as the machine stood still,
/// the limits were kept in the process meanwhile, which is not what was to be seen: then with another Redis, from the beginning.
pub async fn in_one_session<T>(mut trial: impl AsyncFnMut(&Rig, &RedisLimits) -> T) -> T {
    for _ in 0..10 {
        let rig = Rig::start().await;
        let limits = rig.limits().await;
        until_well(&limits).await;
        let before = rig.sessions().await;
        let seen = trial(&rig, &limits).await;
        if limits.check().await.is_ok() && rig.sessions().await == before {
            return seen;
        }
    }
    panic!("Redis never was there for a whole trial");
}

/// Tells them each second how many dispatchers live, as the heart of each does, until it is dropped.
pub fn hearts(of: &[&Arc<RedisLimits>], alive: u32) -> JoinSet<()> {
    let beat = |limits: Arc<RedisLimits>| async move {
        loop {
            limits.set_share(alive);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    of.iter().map(|limits| beat(Arc::clone(limits))).collect()
}

pub async fn until_well(limits: &RedisLimits) {
    let mut last = None;
    let waiting = async {
        while let Err(error) = limits.check().await {
            last = Some(error);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(ended.is_ok(), "Redis is reached again: {last:?}");
}

/// Waits until it is so.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "it never becomes so");
}

/// Asks until there is an answer: there is none to a call in which the machine stood still. It must do no harm to ask twice.
pub async fn answered<T>(mut ask: impl AsyncFnMut() -> Result<T, LimitsUnavailable>) -> T {
    let mut answer = None;
    until(async || {
        answer = ask().await.ok();
        answer.is_some()
    })
    .await;
    answer.unwrap()
}

pub async fn take(limits: &RedisLimits, request: TokenRequest) -> u32 {
    limits.take_tokens(&[request]).await.unwrap()[0].granted
}
