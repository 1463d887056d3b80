//! The bus port's own suite on Kafka, and what is particular to this implementation.

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use signalpost_bus::{Bus, Delivered, Place, codec, conformance};

use crate::support::{connect, ids, message, settings, world};

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let world = world();
    let factory = async || {
        let bus = connect(settings(&support::brokers()), &world);
        bus.ensure_topics().await.unwrap();
        Arc::new(bus) as Arc<dyn Bus>
    };
    conformance::exercise(factory, &world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_told_and_can_be_set_aside() {
    let world = world();
    let settings = settings(&support::brokers());
    let bus = connect(settings.clone(), &world);
    bus.ensure_topics().await.unwrap();

    // As a Signalpost of the far future would write it, and as somebody who writes to the wrong topic.
    let wanted = message(&world);
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &settings.brokers);
    let producer: FutureProducer = client.create().unwrap();
    let topic = settings.deliveries_topic();
    let headers = OwnedHeaders::new()
        .insert(Header { key: codec::VERSION_HEADER, value: Some("9") })
        .insert(Header { key: codec::DELIVERY_HEADER, value: Some(&wanted.delivery_id.to_string()) });
    let strange = FutureRecord::to(&topic).key("k").payload(b"strange".as_slice()).headers(headers);
    producer.send(strange, Duration::from_secs(10)).await.unwrap();
    producer.send(FutureRecord::<str, [u8]>::to(&topic).key("k"), Duration::from_secs(10)).await.unwrap();
    bus.publish(vec![Arc::clone(&wanted)]).await.unwrap();

    let mut consumer = bus.consume().await.unwrap();
    let (mut broken, mut whole) = (Vec::new(), Vec::new());
    while broken.len() + whole.len() < 3 {
        for item in support::receive(&mut *consumer).await {
            match item {
                Delivered::Undecodable { place, delivery_id, error } => broken.push((place, delivery_id, error)),
                Delivered::Message { place, message, .. } => whole.push((place, message)),
                Delivered::Revoked(partitions) => consumer.released(&partitions),
            }
        }
    }
    assert_eq!(whole[0].1, wanted);
    assert_eq!(broken[0].1, Some(wanted.delivery_id));
    assert_eq!(broken[0].2, "envelope version 9 is newer than this program reads");
    assert_eq!((broken[1].1, broken[1].2.as_str()), (None, "no value"));
    for (place, ..) in &broken {
        consumer.set_aside(*place).await.unwrap();
    }
    for (place, _, _) in broken {
        consumer.commit(Place { offset: place.offset + 1, ..place });
    }
    for (place, _) in whole {
        consumer.commit(Place { offset: place.offset + 1, ..place });
    }
    support::until("all is committed", async || bus.lag().await == Some(0)).await;
    consumer.close().await;

    // Byte for byte, with what was wrong.
    let reader: BaseConsumer = client
        .set("group.id", format!("{}-reader", settings.group))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    reader.subscribe(&[&settings.unreadable_topic()]).unwrap();
    let kept = tokio::task::spawn_blocking(move || {
        let mut kept = Vec::new();
        for _ in 0..600 {
            if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
                kept.push(message.detach());
            }
            if kept.len() == 2 {
                break;
            }
        }
        kept
    })
    .await
    .unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[0].key(), kept[0].payload()), (Some(b"k".as_slice()), Some(b"strange".as_slice())));
    let header = |name: &str| kept[0].headers()?.iter().find(|header| header.key == name)?.value;
    assert_eq!(header(codec::VERSION_HEADER), Some(b"9".as_slice()));
    assert_eq!(header("signalpost-error"), Some(b"envelope version 9 is newer than this program reads".as_slice()));
    assert_eq!(kept[1].payload(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_takes_nothing_keeps_its_place_and_loses_nothing() {
    let world = world();
    let settings = settings(&support::brokers());
    let bus = connect(settings, &world);
    bus.ensure_topics().await.unwrap();
    let mut consumer = bus.consume().await.unwrap();
    // More than waits in a consumer, and more bytes.
    let batch: Vec<_> = (0..6000).map(|_| support::message_with(&world, Bytes::from(vec![b'x'; 4000]))).collect();
    for part in batch.chunks(1000) {
        support::publish(&bus, part).await;
    }
    // It takes a little and then stalls, with more before it than it holds. Another joins and gets its share all the
    // same: the stalled one is given its time to let go, and no more.
    let mut got = support::receive_ids(&mut *consumer, 1).await;
    let mut other = bus.consume().await.unwrap();
    got.extend(support::receive_ids(&mut *other, 1).await);
    let all = ids(&batch);
    support::until("both together receive everything", async || {
        let (one, two) = tokio::join!(support::receive_briefly(&mut *consumer), support::receive_briefly(&mut *other),);
        got.extend(one);
        got.extend(two);
        all.is_subset(&got)
    })
    .await;
    consumer.close().await;
    other.close().await;
}
