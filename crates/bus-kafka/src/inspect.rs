//! What an operator wants to know of a Kafka: `signalpost doctor`.

use std::time::Duration;

use rdkafka::{
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
};
use signalpost_bus::BusError;

use crate::{context::QuietContext, settings::KafkaSettings};

/// How long the brokers may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the brokers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// How many there are.
    pub brokers: usize,
    /// Our topics by name; None where one is missing.
    pub topics: Vec<(String, Option<TopicInspection>)>,
}

/// One topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicInspection {
    /// How many partitions it has.
    pub partitions: usize,
    /// The fewest copies that one of them has.
    pub least_copies: usize,
}

/// Asks the brokers once. Creates nothing.
///
/// # Errors
/// None of them answers, or librdkafka does not accept the settings.
pub async fn inspect(settings: &KafkaSettings) -> Result<Inspection, BusError> {
    settings.check().map_err(|error| BusError::Unavailable(error.to_string()))?;
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&settings)).await;
    asked
        .map_err(|error| BusError::Unavailable(error.to_string()))?
        .map_err(|error| BusError::Unavailable(error.to_string()))
}

fn ask(settings: &KafkaSettings) -> Result<Inspection, rdkafka::error::KafkaError> {
    let client: BaseConsumer<QuietContext> = BaseConsumer::from_config_and_context(&settings.client(), QuietContext)?;
    let metadata = client.fetch_metadata(None, PATIENCE)?;
    let topic = |name: String| {
        let there = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
        let inspection = there.map(|topic| TopicInspection {
            partitions: topic.partitions().len(),
            least_copies: topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        });
        (name, inspection)
    };
    Ok(Inspection {
        brokers: metadata.brokers().len(),
        topics: vec![topic(settings.deliveries_topic()), topic(settings.unreadable_topic())],
    })
}
