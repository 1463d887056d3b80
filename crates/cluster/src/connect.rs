//! Settings to the three backends. Each connects when it is needed, as often as it is needed.

use std::sync::Arc;

use signalpost_bus_kafka::{KafkaBus, KafkaSettings};
use signalpost_config::Settings;
use signalpost_core::Entropy;
use signalpost_limits::Limits;
use signalpost_limits_redis::RedisLimits;
use signalpost_store_postgres::{PostgresSettings, PostgresStore};
use signalpost_wiring::{Failure, Process};

/// Connections for the lists of the API, out of those that one process may open.
const READ_SHARE: u32 = 4;

/// How PostgreSQL is used.
pub fn postgres_settings(settings: &Settings) -> PostgresSettings {
    let most = settings.storage.database_max_connections.get();
    let reads = (most / READ_SHARE).max(1);
    PostgresSettings { max_connections: (most - reads).max(1), read_connections: reads, ..PostgresSettings::default() }
}

/// The store.
///
/// # Errors
/// The URL is not set, or is none.
pub async fn postgres(settings: &Settings, entropy: Arc<dyn Entropy>) -> Result<Arc<PostgresStore>, Failure> {
    let store = PostgresStore::connect(settings.database_url()?, postgres_settings(settings), entropy);
    store.await.map(Arc::new).map_err(|error| Failure::setting(format!("SIGNALPOST_DATABASE_URL: {error}")))
}

/// How Kafka is used.
///
/// # Errors
/// The brokers are not set, or a number is larger than Kafka takes.
pub fn kafka_settings(settings: &Settings) -> Result<KafkaSettings, Failure> {
    let kafka = &settings.kafka;
    let too_large = |name: &str| Failure::setting(format!("SIGNALPOST_KAFKA_{name} is larger than Kafka takes"));
    Ok(KafkaSettings {
        brokers: settings.kafka_brokers()?.to_owned(),
        topic_prefix: kafka.topic_prefix.clone(),
        group: kafka.consumer_group.clone(),
        partitions: kafka.partitions.get().try_into().map_err(|_| too_large("PARTITIONS"))?,
        replication: match kafka.replication {
            Some(copies) => Some(copies.get().try_into().map_err(|_| too_large("REPLICATION"))?),
            None => None,
        },
        properties: settings.kafka_properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    })
}

/// The bus.
///
/// # Errors
/// The brokers are not set, or librdkafka does not accept the settings.
pub fn kafka(settings: &Settings, process: &Process) -> Result<Arc<KafkaBus>, Failure> {
    let bus = KafkaBus::connect(kafka_settings(settings)?, Arc::clone(&process.clock));
    bus.map(Arc::new).map_err(|error| Failure::setting(error.to_string()))
}

/// The limits.
///
/// # Errors
/// The URL is not set, or is none.
pub async fn redis(settings: &Settings, process: &Process) -> Result<Arc<dyn Limits>, Failure> {
    let limits = RedisLimits::connect(settings.redis_url()?, Arc::clone(&process.clock)).await;
    Ok(Arc::new(limits.map_err(|error| Failure::setting(format!("SIGNALPOST_REDIS_URL: {error}")))?))
}
