//! Kafka goes away, comes back, and comes back empty. Nothing of ours is restarted.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{path::PathBuf, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use signalpost_bus::{Bus, BusError, Consumer, Delivered, Place};
use signalpost_services::{Kafka, kafka};

use crate::support::{connect, ids, message, settings, world};

/// A broker that only this test stops.
fn start() -> Kafka {
    let cache = std::env::var_os("SIGNALPOST_TEST_SERVICES_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| panic!("there are no jars of Kafka: run `cargo xtask test`"));
    Kafka::start(&kafka::jars(&cache).unwrap()).unwrap()
}

/// Receives until nothing is behind, committing all of it; tells how many were rereads and how many were not.
async fn drain(bus: &dyn Bus, consumer: &mut dyn Consumer) -> (usize, usize) {
    let (mut rereads, mut others) = (0, 0);
    support::until("nothing is behind", async || {
        if let Ok(Ok(items)) = tokio::time::timeout(Duration::from_millis(200), consumer.receive(500)).await {
            for item in items {
                match item {
                    Delivered::Message { place, reread, .. } => {
                        *(if reread { &mut rereads } else { &mut others }) += 1;
                        consumer.commit(Place { offset: place.offset + 1, ..place });
                    }
                    Delivered::Undecodable { error, .. } => panic!("undecodable: {error}"),
                    Delivered::Revoked(partitions) => consumer.released(&partitions),
                }
            }
        }
        bus.lag().await == Some(0)
    })
    .await;
    (rereads, others)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_kafka_an_outage_heals_without_a_restart() {
    let world = world();
    let mut kafka = tokio::task::spawn_blocking(start).await.unwrap();
    let bus = connect(settings(&kafka.brokers()), &world);
    bus.ensure_topics().await.unwrap();
    let mut consumer = bus.consume().await.unwrap();
    let before: Vec<_> = (0..20).map(|_| message(&world)).collect();
    support::publish(&bus, &before).await;
    support::receive_until(&mut *consumer, &ids(&before)).await;

    // Stopped: nothing is taken, nothing is known, and the caller learns it in time.
    kafka.halt().unwrap();
    let asked_at = world.clock.elapsed();
    let refused = bus.publish(vec![message(&world)]).await;
    assert!(matches!(refused, Err(BusError::Unavailable(_))), "{refused:?}");
    // By 5 s, and by what this machine may have stood still meanwhile.
    assert!(world.clock.elapsed() - asked_at < Duration::from_secs(10), "bounded, as the port promises");
    assert!(bus.check().await.is_err());
    assert_eq!(bus.consumed_until().await, None);
    assert_eq!(bus.lag().await, None);

    // Back: what was not committed is still there, and new ones arrive.
    kafka.resume().unwrap();
    let after: Vec<_> = (0..20).map(|_| message(&world)).collect();
    support::publish(&bus, &after).await;
    support::receive_until(&mut *consumer, &ids(&after)).await;
    support::until("it knows how far it is", async || {
        bus.consumed_until().await.is_some_and(|until| until <= world.clock.now())
    })
    .await;
    let until = bus.consumed_until().await.unwrap();
    assert!(until < after[0].delivery_id.created_at(), "the first ones are not committed");
    assert!(bus.check().await.is_ok());
    consumer.close().await;
    let mut consumer = bus.consume().await.unwrap();
    let (rereads, others) = drain(&bus, &mut *consumer).await;
    assert!(rereads >= 40 && others == 0, "{rereads} rereads, {others} others");

    // Back, and empty: topics are made again, offsets start anew, and what was on the bus counts as lost.
    let lost: Vec<_> = (0..20).map(|_| message(&world)).collect();
    support::publish(&bus, &lost).await;
    kafka.halt().unwrap();
    kafka.lose_data().unwrap();
    kafka.resume().unwrap();
    support::until("it knows that the bus has moved past what it lost", async || {
        bus.consumed_until().await.is_some_and(|until| until > lost[19].delivery_id.created_at())
    })
    .await;
    let fresh: Vec<_> = (0..20).map(|_| message(&world)).collect();
    support::publish(&bus, &fresh).await;
    support::receive_until(&mut *consumer, &ids(&fresh)).await;
    let more: Vec<_> = (0..5).map(|_| message(&world)).collect();
    support::publish(&bus, &more).await;
    support::receive_until(&mut *consumer, &ids(&more)).await;
    consumer.close().await;
    let mut consumer = bus.consume().await.unwrap();
    drain(&bus, &mut *consumer).await;
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_kafka_a_topic_that_is_missing_or_lost_is_created_again() {
    let world = world();
    let settings = settings(&support::brokers());
    // Nobody has created it yet: the first to miss it does.
    let bus = connect(settings.clone(), &world);
    let mut consumer = bus.consume().await.unwrap();
    let first = [message(&world)];
    support::publish(&bus, &first).await;
    support::receive_until(&mut *consumer, &ids(&first)).await;

    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap();
    client.delete_topics(&[&settings.deliveries_topic()], &AdminOptions::new()).await.unwrap();
    // The deletion goes on after its answer: what is published meanwhile may go with the old topic, or lie where the consumer has
    // been already. That is a loss of the bus, which the reconciler mends; here it is enough that the bus heals.
    support::until("what is published arrives again", async || {
        support::publish(&bus, &[message(&world)]).await;
        let received = tokio::time::timeout(Duration::from_millis(200), consumer.receive(500)).await;
        let items = received.into_iter().flatten().flatten().collect::<Vec<_>>();
        items.into_iter().fold(false, |arrived, item| match item {
            Delivered::Revoked(partitions) => {
                consumer.released(&partitions);
                arrived
            }
            Delivered::Message { message, .. } => arrived || message.delivery_id != first[0].delivery_id,
            Delivered::Undecodable { error, .. } => panic!("undecodable: {error}"),
        })
    })
    .await;
    support::until("it knows how far it is", async || bus.consumed_until().await.is_some()).await;
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_kafka_a_dispatcher_that_takes_nothing_reads_no_more_when_it_inherits_partitions() {
    let world = world();
    let kafka = tokio::task::spawn_blocking(start).await.unwrap();
    let bus = connect(settings(&kafka.brokers()), &world);
    bus.ensure_topics().await.unwrap();
    let mut stays = bus.consume().await.unwrap();
    let mut goes = bus.consume().await.unwrap();
    // Until both have partitions.
    let (mut one, mut other) = (false, false);
    support::until("both receive", async || {
        support::publish(&bus, &[message(&world)]).await;
        for (consumer, has) in [(&mut stays, &mut one), (&mut goes, &mut other)] {
            let received = tokio::time::timeout(Duration::from_millis(50), consumer.receive(100)).await;
            for item in received.into_iter().flatten().flatten() {
                match item {
                    Delivered::Revoked(partitions) => consumer.released(&partitions),
                    _ => *has = true,
                }
            }
        }
        one && other
    })
    .await;
    for _ in 0..20 {
        let batch: Vec<_> = (0..1000).map(|_| message(&world)).collect();
        support::publish(&bus, &batch).await;
    }
    goes.close().await;
    // Nothing tells when it would have been too much: so long, several times what reading all of it takes. A broker or a machine
    // that stands still for long may take partitions from it meanwhile: then it reads anew.
    let mut items = Vec::new();
    support::until("there are messages", async || {
        tokio::time::sleep(Duration::from_secs(8)).await;
        items = stays.receive(usize::MAX).await.unwrap_or_default();
        items.retain(|item| match item {
            Delivered::Revoked(partitions) => {
                stays.released(partitions);
                false
            }
            _ => true,
        });
        !items.is_empty()
    })
    .await;
    assert!((2000..=4000).contains(&items.len()), "{} messages in memory", items.len());
}
