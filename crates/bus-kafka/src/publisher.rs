//! Writes batches: hands all records over, then waits until the last one is acknowledged.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use signalpost_bus::{BusError, codec::Encoded};
use tokio::{sync::Notify, time::Instant};

use crate::{
    context,
    settings::{KafkaSettings, SettingsError},
    topics::Repair,
};

/// The longest that a batch takes, time-out of its messages included.
const LONGEST: Duration = Duration::from_millis(4800);

/// A producer that has written nothing for so long, in spite of trying, is replaced, and its successor after as long. One may try for
/// ever: where the topic was made anew unseen, it takes the leader of the new one for an outdated one, as its epoch is lower.
const MOST_FAILING: Duration = Duration::from_secs(15);

/// How long to wait for room in librdkafka's queue before looking again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

pub(crate) type KafkaProducer = ThreadedProducer<PublisherContext>;

/// A record to write.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Option<OwnedHeaders>,
    pub(crate) value: Option<Vec<u8>>,
}

impl From<Encoded> for Record {
    fn from(encoded: Encoded) -> Self {
        let mut headers = OwnedHeaders::new_with_capacity(encoded.headers.len());
        for (key, value) in &encoded.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        Self { key: Some(encoded.key.into_bytes()), headers: Some(headers), value: Some(encoded.value) }
    }
}

/// A batch that is under way. Shared by its records, written by librdkafka's callback.
#[derive(Debug)]
pub(crate) struct Batch {
    left: AtomicUsize,
    failure: Mutex<Option<KafkaError>>,
    done: Notify,
}

impl Batch {
    fn failure(&self) -> Option<KafkaError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
pub(crate) struct PublisherContext;

impl ClientContext for PublisherContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::error(&error, reason);
    }
}

impl ProducerContext for PublisherContext {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        if let Err((error, _)) = result {
            *batch.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
        if batch.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            batch.done.notify_one();
        }
    }
}

/// The producer, replaced when it has failed for good.
pub(crate) struct Publisher {
    config: ClientConfig,
    producer: RwLock<Arc<KafkaProducer>>,
    /// The last batch failed: a full queue will not empty soon.
    away: AtomicBool,
    /// Since when every batch has failed, or its producer was replaced for it.
    failing_since: Mutex<Option<Instant>>,
    repair: Repair,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("away", &self.away).finish_non_exhaustive()
    }
}

impl Publisher {
    pub(crate) fn new(settings: &KafkaSettings, repair: Repair) -> Result<Self, SettingsError> {
        let config = settings.producer();
        let producer = create(&config).map_err(|error| SettingsError(error.to_string()))?;
        Ok(Self {
            config,
            producer: RwLock::new(Arc::new(producer)),
            away: AtomicBool::new(false),
            failing_since: Mutex::default(),
            repair,
        })
    }

    pub(crate) fn producer(&self) -> Arc<KafkaProducer> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the records and waits for the last acknowledgement, less than 5 s. Dropping the future stops the waiting,
    /// not the writing.
    pub(crate) async fn publish(&self, topic: String, records: Vec<Record>) -> Result<(), BusError> {
        if records.is_empty() {
            return Ok(());
        }
        let producer = self.producer();
        let written = tokio::time::timeout(LONGEST, self.write(&producer, &topic, records)).await;
        let failure = match written {
            Ok(Ok(())) => {
                self.away.store(false, Ordering::Relaxed);
                *self.failing_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no acknowledgement in time".to_owned(),
        };
        self.away.store(true, Ordering::Relaxed);
        // A missing topic is one of the reasons.
        self.repair.request();
        self.replace_if_dead(producer).await;
        Err(BusError::Unavailable(failure))
    }

    async fn write(&self, producer: &KafkaProducer, topic: &str, records: Vec<Record>) -> Result<(), KafkaError> {
        let batch =
            Arc::new(Batch { left: AtomicUsize::new(records.len()), failure: Mutex::default(), done: Notify::new() });
        for mut record in records {
            while let Err(error) = send(producer, topic, &mut record, &batch) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                if !full || self.away.load(Ordering::Relaxed) {
                    return Err(error);
                }
                tokio::time::sleep(ROOM_PAUSE).await;
            }
        }
        batch.done.notified().await;
        batch.failure().map_or(Ok(()), Err)
    }

    /// After a fatal error a producer takes nothing any more; after many it may never again.
    async fn replace_if_dead(&self, producer: Arc<KafkaProducer>) {
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the kafka producer failed for good and is replaced");
        } else if self.has_failed_for_long() {
            tracing::warn!("nothing was written for long; the kafka producer is replaced");
        } else {
            return;
        }
        let old = {
            let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&current, &producer) {
                return;
            }
            match create(&self.config) {
                Ok(fresh) => std::mem::replace(&mut *current, Arc::new(fresh)),
                Err(error) => {
                    tracing::error!(%error, "no new kafka producer");
                    return;
                }
            }
        };
        // Its end waits for its threads.
        let _detached = tokio::task::spawn_blocking(move || drop((old, producer)));
    }

    fn has_failed_for_long(&self) -> bool {
        let mut since = self.failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = since.get_or_insert_with(Instant::now).elapsed() >= MOST_FAILING;
        if is_long {
            *since = Some(Instant::now());
        }
        is_long
    }
}

fn create(config: &ClientConfig) -> Result<KafkaProducer, KafkaError> {
    ThreadedProducer::from_config_and_context(config, PublisherContext)
}

/// The headers go with the record; where it is refused, they are put back.
fn send(producer: &KafkaProducer, topic: &str, record: &mut Record, batch: &Arc<Batch>) -> Result<(), KafkaError> {
    let mut out = BaseRecord::<[u8], [u8], Arc<Batch>>::with_opaque_to(topic, Arc::clone(batch));
    out.headers = record.headers.take();
    if let Some(key) = &record.key {
        out = out.key(key);
    }
    if let Some(value) = &record.value {
        out = out.payload(value);
    }
    producer.send(out).map_err(|(error, refused)| {
        record.headers = refused.headers;
        error
    })
}
