//! What `signalpost migrate` does for a cluster.

use std::sync::Arc;

use anyhow::Context as _;
use signalpost_bus_kafka::KafkaBus;
use signalpost_config::Settings;
use signalpost_runtime::SystemClock;
use signalpost_store_postgres::PostgresStore;
use signalpost_wiring::Failure;

use crate::connect;

/// The schema in PostgreSQL, then the topics in Kafka. May be run again, and by several at once.
///
/// # Errors
/// One of them is not set, or away, or does not let us.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let (url, kafka) = (settings.database_url()?, connect::kafka_settings(settings)?);
    PostgresStore::migrate(url).await.context("cannot migrate PostgreSQL")?;
    println!("PostgreSQL: the schema is up to date");
    let (brokers, topic) = (kafka.brokers.clone(), kafka.deliveries_topic());
    let bus =
        KafkaBus::connect(kafka, Arc::new(SystemClock::new())).map_err(|error| Failure::setting(error.to_string()))?;
    bus.ensure_topics().await.with_context(|| format!("cannot make the topics in Kafka at {brokers}"))?;
    println!("Kafka: {topic} and its companion are there");
    Ok(())
}
