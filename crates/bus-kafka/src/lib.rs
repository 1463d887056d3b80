//! The bus port on Apache Kafka.
//!
//! One topic, `<prefix>.deliveries`, keyed by destination; the dispatchers are one consumer group. What cannot be
//! decoded is kept in `<prefix>.unreadable`. Kafka's own guarantees are used where they are cheap (acks from all
//! in-sync replicas, an idempotent producer), but nothing relies on them: a message that Kafka loses is found by the
//! reconciler, one that it repeats is stopped by the dispatcher's checks.
//!
//! The parts: [`publisher`] writes batches, [`consumer`] is one member of the group on a thread of its own,
//! [`observer`] and [`progress`] tell how far consumption has come, [`topics`] creates what is missing, also again after a loss.
//! librdkafka reconnects by itself; what it cannot recover from (a fatal error of a client) makes us build that client
//! anew.

mod consumer;
mod context;
mod inspect;
mod observer;
mod progress;
mod publisher;
mod settings;
mod topics;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rdkafka::producer::Producer as _;
use signalpost_bus::{Bus, BusError, Consumer, Message, codec};
use signalpost_core::{Clock, Timestamp};

pub use crate::inspect::{Inspection, TopicInspection, inspect};
pub use crate::settings::{KafkaSettings, SettingsError};
use crate::{
    consumer::KafkaConsumer,
    progress::Progress,
    publisher::{Publisher, Record},
    topics::Topics,
};

/// How long [`Bus::check`] waits for an answer.
const CHECK_TIME: Duration = Duration::from_secs(1);

/// The bus.
#[derive(Debug)]
pub struct KafkaBus {
    settings: Arc<KafkaSettings>,
    clock: Arc<dyn Clock>,
    publisher: Arc<Publisher>,
    progress: Progress,
    topics: Arc<Topics>,
}

impl KafkaBus {
    /// Makes the clients. Kafka need not be there yet: they connect by themselves, as soon and as often as needed.
    /// To be called within a Tokio runtime.
    ///
    /// # Errors
    /// librdkafka does not accept the settings.
    pub fn connect(settings: KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        settings.check()?;
        let settings = Arc::new(settings);
        let topics = Arc::new(Topics::start(Arc::clone(&settings)));
        let publisher = Arc::new(Publisher::new(&settings, topics.repair())?);
        let progress = Progress::new(Arc::clone(&settings), Arc::clone(&clock), topics.repair());
        Ok(Self { settings, clock, publisher, progress, topics })
    }

    /// Creates the topics that are missing, and partitions that are missing in them. Harmless where all is there.
    ///
    /// # Errors
    /// Kafka is away or does not let us.
    pub async fn ensure_topics(&self) -> Result<(), BusError> {
        self.topics.ensure().await
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        let mut records = Vec::with_capacity(batch.len());
        for message in batch {
            // Only meta that no acceptance lets through cannot be encoded; the store still has it.
            let encoded = codec::encode(&message).map_err(|error| BusError::Unavailable(error.to_string()))?;
            records.push(Record::from(encoded));
        }
        self.publisher.publish(self.settings.deliveries_topic(), records).await
    }

    async fn consumed_until(&self) -> Option<Timestamp> {
        self.progress.consumed_until().await
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError> {
        let consumer = KafkaConsumer::join(
            Arc::clone(&self.settings),
            Arc::clone(&self.clock),
            Arc::clone(&self.publisher),
            self.topics.repair(),
        )?;
        Ok(Box::new(consumer))
    }

    async fn lag(&self) -> Option<u64> {
        self.progress.lag().await
    }

    async fn check(&self) -> Result<(), BusError> {
        let producer = self.publisher.producer();
        let topic = self.settings.deliveries_topic();
        let metadata =
            tokio::task::spawn_blocking(move || producer.client().fetch_metadata(Some(&topic), CHECK_TIME).map(drop))
                .await
                .map_err(|error| BusError::Unavailable(error.to_string()))?;
        metadata.map_err(|error| BusError::Unavailable(error.to_string()))
    }
}
