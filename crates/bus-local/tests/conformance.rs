//! The bus port's own suite, and what is particular to this implementation.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use signalpost_bus::{Bus, BusError, Delivered, Message, Origin, conformance};
use signalpost_bus_local::{Capacity, LocalBus};
use signalpost_core::{Clock, DeliveryId, DestinationId, Event, EventId, EventMeta, TenantId, Timestamp};
use signalpost_runtime::{SystemClock, SystemEntropy};

#[tokio::test]
async fn conforms() {
    let world = conformance::World { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) };
    let clock = Arc::clone(&world.clock);
    let factory = async || Arc::new(LocalBus::new(&*clock, Capacity::default())) as Arc<dyn Bus>;
    conformance::exercise(factory, &world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_several_threads() {
    let world = conformance::World { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) };
    let clock = Arc::clone(&world.clock);
    let factory = async || Arc::new(LocalBus::new(&*clock, Capacity::default())) as Arc<dyn Bus>;
    conformance::exercise(factory, &world).await;
}

fn message(number: u8, bytes: usize) -> Arc<Message> {
    let at = Timestamp::from_millis(1_700_000_000_000);
    Arc::new(Message {
        delivery_id: DeliveryId::from_parts(at, [number; 10]),
        tenant_id: TenantId::DEFAULT,
        destination_id: DestinationId::from_parts(at, [1; 10]),
        destination_version: 1,
        attempt: 1,
        origin: Origin::Fresh,
        event: Arc::new(Event {
            id: EventId::from_parts(at, [number; 10]),
            tenant_id: TenantId::DEFAULT,
            event_type: "order.created".to_owned(),
            uid: None,
            source: None,
            meta: EventMeta::default(),
            data: Bytes::from(vec![b'x'; bytes]),
        }),
        payload: signalpost_bus::Payload::Inline,
        lane: None,
        guarantee: signalpost_core::Guarantee::AtLeastOnce,
        born_at: None,
    })
}

/// Its clock: the start of the process and nothing else.
fn bus(capacity: Capacity) -> LocalBus {
    LocalBus::new(&SystemClock::new(), capacity)
}

#[tokio::test(start_paused = true)]
async fn a_full_bus_takes_again_after_a_commit() {
    let bus = bus(Capacity { messages: 3, data_bytes: 10, ..Capacity::default() });
    bus.publish(vec![message(1, 4), message(2, 4)]).await.unwrap();
    let refused = |result| assert!(matches!(result, Err(BusError::Unavailable(_))), "{result:?}");
    refused(bus.publish(vec![message(3, 0), message(4, 0)]).await);
    refused(bus.publish(vec![message(3, 3)]).await);
    assert_eq!(bus.lag().await, Some(2), "a refused batch is refused whole");
    let mut consumer = bus.consume().await.unwrap();
    let received = consumer.receive(1).await.unwrap();
    let [Delivered::Message { place, .. }] = received[..] else { panic!("{received:?}") };
    refused(bus.publish(vec![message(3, 3)]).await);
    consumer.commit(signalpost_bus::Place { offset: place.offset + 1, ..place });
    bus.publish(vec![message(3, 3), message(4, 3)]).await.unwrap();
    refused(bus.publish(vec![message(5, 0)]).await);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_larger_than_the_bus_is_taken_where_any_would_be() {
    let bus = bus(Capacity { data_bytes: 10, ..Capacity::default() });
    bus.publish(vec![message(1, 8)]).await.unwrap();
    bus.publish(vec![message(2, 6), message(3, 5)]).await.unwrap();
    assert!(matches!(bus.publish(vec![message(4, 11)]).await, Err(BusError::Unavailable(_))), "it is full");
    assert_eq!(bus.lag().await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_room_until_a_commit_makes_some() {
    let bus = bus(Capacity { messages: 2, ..Capacity::default() });
    bus.publish(vec![message(1, 0), message(2, 0)]).await.unwrap();
    let mut consumer = bus.consume().await.unwrap();
    let received = consumer.receive(2).await.unwrap();
    let [.., Delivered::Message { place, .. }] = received[..] else { panic!("{received:?}") };
    let began = tokio::time::Instant::now();
    let commit = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        consumer.commit(signalpost_bus::Place { offset: place.offset + 1, ..place });
    };
    let (published, ()) = tokio::join!(bus.publish(vec![message(3, 0)]), commit);
    published.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(bus.lag().await, Some(1));
}

#[tokio::test]
async fn what_a_consumer_left_comes_first_and_in_order() {
    let bus = bus(Capacity::default());
    bus.publish((1..=3).map(|number| message(number, 1)).collect()).await.unwrap();
    let mut consumer = bus.consume().await.unwrap();
    assert_eq!(consumer.receive(2).await.unwrap().len(), 2);
    drop(consumer);
    let mut consumer = bus.consume().await.unwrap();
    let numbers: Vec<_> = consumer
        .receive(10)
        .await
        .unwrap()
        .iter()
        .map(|item| match item {
            Delivered::Message { message, reread, .. } => (message.delivery_id, *reread),
            other => panic!("{other:?}"),
        })
        .collect();
    let id = |number| message(number, 1).delivery_id;
    assert_eq!(numbers, [(id(1), true), (id(2), true), (id(3), false)]);
}

#[tokio::test]
async fn what_was_handed_over_before_the_start_of_the_process_is_gone() {
    let clock = SystemClock::new();
    let before = clock.now();
    let bus = LocalBus::new(&clock, Capacity::default());
    bus.publish(vec![message(1, 1)]).await.unwrap();
    let until = bus.consumed_until().await.unwrap();
    assert!(before <= until && until <= clock.now());
    assert_eq!(bus.consumed_until().await, Some(until), "it stays the start");
}
