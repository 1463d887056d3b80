//! The limits port's own suite on Redis.

use std::sync::Arc;

use signalpost_limits::{Limits, conformance};
use signalpost_limits_redis::RedisLimits;
use signalpost_runtime::{SystemClock, SystemEntropy};

fn url() -> String {
    std::env::var("SIGNALPOST_TEST_REDIS_URL").unwrap_or_else(|_| panic!("there is no Redis: run `cargo xtask test`"))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let url = url();
    // These data are as old as can be.
    let mut direct = redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("SET").arg("signalpost:born").arg(0).exec_async(&mut direct).await.unwrap();
    let world = conformance::World { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) };
    let factory =
        async || Arc::new(RedisLimits::connect(&url, Arc::clone(&world.clock)).await.unwrap()) as Arc<dyn Limits>;
    conformance::exercise(factory, &world).await;
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let error = RedisLimits::connect("http://localhost", Arc::new(SystemClock::new())).await.unwrap_err();
    assert!(error.to_string().starts_with("the address of Redis does not work: "), "{error}");
}

#[tokio::test]
async fn a_redis_that_does_not_speak_tls_is_away_to_who_asks_for_it() {
    let url = url().replace("redis://", "rediss://");
    let limits = RedisLimits::connect(&url, Arc::new(SystemClock::new())).await.unwrap();
    assert!(limits.check().await.is_err());
}
