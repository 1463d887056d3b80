//! Dispatchers that live.

use super::world::{World, eventually};

super::cases![those_that_live_are_counted, one_that_falls_silent_is_forgotten];

async fn those_that_live_are_counted(world: &World) {
    let elsewhere = world.database.handle().await;
    assert_eq!(world.store.heartbeat(1).await.unwrap(), 1);
    assert_eq!(world.store.heartbeat(1).await.unwrap(), 1, "once each");
    assert_eq!(elsewhere.heartbeat(u64::MAX).await.unwrap(), 2);
    assert_eq!(elsewhere.heartbeat(0).await.unwrap(), 3);
    assert_eq!(world.store.heartbeat(1).await.unwrap(), 3);
    elsewhere.farewell(u64::MAX).await.unwrap();
    elsewhere.farewell(u64::MAX).await.unwrap();
    elsewhere.farewell(77).await.unwrap();
    assert_eq!(world.store.heartbeat(1).await.unwrap(), 2);
}

async fn one_that_falls_silent_is_forgotten(world: &World) {
    let last = world.now().await;
    assert_eq!(world.store.heartbeat(1).await.unwrap(), 1);
    assert_eq!(world.store.heartbeat(2).await.unwrap(), 2);
    let alone = eventually("the other one counts no more", async || {
        let alive = world.store.heartbeat(2).await.unwrap();
        let now = world.now().await;
        (alive == 1).then_some(now)
    })
    .await;
    assert!(alone.since(last) + std::time::Duration::from_millis(100) >= crate::HEARTBEAT_LIFE, "not before its time");
    assert_eq!(world.store.heartbeat(1).await.unwrap(), 2, "it is back");
}
