//! Messages of the same size into Kafka, acknowledged by all replicas, and out of it.

use std::{sync::Arc, time::Duration};

use signalpost_bus::{Bus as _, Delivered, Message, Origin, Payload};
use signalpost_bus_kafka::{KafkaBus, KafkaSettings};
use signalpost_core::{Clock as _, DeliveryId, DestinationId, Guarantee, TenantId};
use signalpost_runtime::{SystemClock, SystemEntropy};

use super::{Found, Options, Watch, store::event};
use crate::processes::Pids;

/// Messages that only warm the JVM up.
const WARM: usize = 100_000;
/// How many are received at once at most.
const MOST: usize = 1_000;
/// How long a consumer may wait for the first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Produces, then consumes.
///
/// # Errors
/// Kafka is away, or does not give back what it took.
pub async fn measure(brokers: &str, options: &Options, pids: &Pids) -> anyhow::Result<[Found; 2]> {
    let settings = KafkaSettings { brokers: brokers.to_owned(), ..KafkaSettings::default() };
    let bus = Arc::new(KafkaBus::connect(settings, Arc::new(SystemClock::new()))?);
    bus.ensure_topics().await?;
    let mut consumer = bus.consume().await?;
    // Partitions take turns by destination, as they do where there are many.
    let destinations: Vec<DestinationId> =
        (0..64).map(|_| DestinationId::new(SystemClock::new().now(), &SystemEntropy)).collect();
    let mut found = None;
    for count in [WARM, options.count] {
        let mut batches: Vec<Vec<Arc<Message>>> = Vec::new();
        for number in 0..count {
            if number % options.group == 0 {
                batches.push(Vec::with_capacity(options.group));
            }
            let event = event(u64::try_from(number)?, options.bytes);
            let message = Message {
                delivery_id: DeliveryId::new(event.created_at(), &SystemEntropy),
                tenant_id: TenantId::DEFAULT,
                destination_id: destinations[number % destinations.len()],
                destination_version: 1,
                attempt: 1,
                origin: Origin::Fresh,
                event: Arc::new(event),
                payload: Payload::Inline,
                lane: None,
                guarantee: Guarantee::AtLeastOnce,
                born_at: None,
            };
            if let Some(batch) = batches.last_mut() {
                batch.push(Arc::new(message));
            }
        }
        let watch = Watch::start(pids);
        let mut publishing = tokio::task::JoinSet::new();
        for batch in batches {
            if publishing.len() >= options.callers.max(1)
                && let Some(published) = publishing.join_next().await
            {
                published??;
            }
            let bus = Arc::clone(&bus);
            publishing.spawn(async move { bus.publish(batch).await });
        }
        while let Some(published) = publishing.join_next().await {
            published??;
        }
        let produced = watch.end(count);

        let watch = Watch::start(pids);
        let mut left = count;
        while left > 0 {
            let received = tokio::time::timeout(PATIENCE, consumer.receive(MOST)).await??;
            for delivered in received {
                if let Delivered::Message { mut place, .. } = delivered {
                    left = left.saturating_sub(1);
                    place.offset += 1;
                    consumer.commit(place);
                }
            }
        }
        found = Some([produced, watch.end(count)]);
    }
    consumer.close().await;
    found.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}
