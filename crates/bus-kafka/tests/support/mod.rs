//! What the tests on Kafka share.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use signalpost_bus::{Bus, BusError, Consumer, Delivered, Message, Origin, conformance::World};
use signalpost_bus_kafka::{KafkaBus, KafkaSettings};
use signalpost_core::{DeliveryId, DestinationId, Event, EventId, EventMeta, Guarantee, TenantId};
use signalpost_runtime::{SystemClock, SystemEntropy};

/// How long a condition may take to come true: a broker takes its time to start.
const DEADLINE: Duration = Duration::from_secs(90);

pub fn brokers() -> String {
    std::env::var("SIGNALPOST_TEST_KAFKA_BROKERS")
        .unwrap_or_else(|_| panic!("there is no Kafka: run `cargo xtask test`"))
}

pub fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) }
}

/// Topics and a group of their own.
pub fn settings(brokers: &str) -> KafkaSettings {
    let world = world();
    let name = DeliveryId::new(world.clock.now(), &*world.entropy).to_string();
    KafkaSettings {
        brokers: brokers.to_owned(),
        topic_prefix: format!("test-{name}"),
        group: format!("test-{name}"),
        partitions: 4,
        ..KafkaSettings::default()
    }
}

pub fn connect(settings: KafkaSettings, world: &World) -> KafkaBus {
    KafkaBus::connect(settings, Arc::clone(&world.clock)).unwrap()
}

pub fn message(world: &World) -> Arc<Message> {
    message_with(world, Bytes::from_static(b"{}"))
}

pub fn message_with(world: &World, data: Bytes) -> Arc<Message> {
    let now = world.clock.now();
    let event = Event {
        id: EventId::new(now, &*world.entropy),
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".to_owned(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data,
    };
    let (event, payload) = Message::carry(Arc::new(event));
    Arc::new(Message {
        delivery_id: DeliveryId::new(now, &*world.entropy),
        tenant_id: TenantId::DEFAULT,
        destination_id: DestinationId::new(now, &*world.entropy),
        destination_version: 1,
        attempt: 1,
        origin: Origin::Fresh,
        event,
        payload,
        lane: None,
        guarantee: Guarantee::AtLeastOnce,
        born_at: None,
    })
}

pub fn ids(messages: &[Arc<Message>]) -> BTreeSet<DeliveryId> {
    messages.iter().map(|message| message.delivery_id).collect()
}

pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "within {DEADLINE:?}: {what}");
}

/// Until the bus takes it.
pub async fn publish(bus: &KafkaBus, batch: &[Arc<Message>]) {
    until("the bus takes a batch", async || bus.publish(batch.to_vec()).await.is_ok()).await;
}

/// Until there is something.
pub async fn receive(consumer: &mut dyn Consumer) -> Vec<Delivered> {
    let receiving = async {
        loop {
            match consumer.receive(500).await {
                Ok(items) => return items,
                Err(BusError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(BusError::Closed) => panic!("closed by nobody"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, receiving).await.unwrap_or_else(|_| panic!("within {DEADLINE:?}: something arrives"))
}

fn note(consumer: &mut dyn Consumer, items: Vec<Delivered>) -> BTreeSet<DeliveryId> {
    let mut got = BTreeSet::new();
    for item in items {
        match item {
            Delivered::Message { message, .. } => drop(got.insert(message.delivery_id)),
            Delivered::Undecodable { error, .. } => panic!("undecodable: {error}"),
            Delivered::Revoked(partitions) => consumer.released(&partitions),
        }
    }
    got
}

/// At least so many.
pub async fn receive_ids(consumer: &mut dyn Consumer, count: usize) -> BTreeSet<DeliveryId> {
    let mut got = BTreeSet::new();
    while got.len() < count {
        let items = receive(consumer).await;
        got.extend(note(consumer, items));
    }
    got
}

pub async fn receive_until(consumer: &mut dyn Consumer, wanted: &BTreeSet<DeliveryId>) {
    let mut got = BTreeSet::new();
    while !wanted.is_subset(&got) {
        got.extend(receive_ids(consumer, 1).await);
    }
}

/// What there is within a moment.
pub async fn receive_briefly(consumer: &mut dyn Consumer) -> BTreeSet<DeliveryId> {
    match tokio::time::timeout(Duration::from_millis(100), consumer.receive(500)).await {
        Ok(Ok(items)) => note(consumer, items),
        Ok(Err(BusError::Unavailable(_))) | Err(_) => BTreeSet::new(),
        Ok(Err(BusError::Closed)) => panic!("closed by nobody"),
    }
}
