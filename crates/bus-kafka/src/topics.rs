//! Creates the topics, at the start and again when they are lost.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult},
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode},
};
use signalpost_bus::BusError;
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};

use crate::{context::QuietContext, settings::KafkaSettings};

/// How long Kafka may take for one request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Between two looks whether what was created has a leader, and how many looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOKS: u32 = 50;

/// Between two repairs, whoever asks for them.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// Asks for a repair, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Repair(Arc<Notify>);

impl Repair {
    /// Something may be missing: look, soon, and create it.
    pub(crate) fn request(&self) {
        self.0.notify_one();
    }
}

/// Owns the task that repairs.
#[derive(Debug)]
pub(crate) struct Topics {
    settings: Arc<KafkaSettings>,
    repair: Repair,
    task: JoinHandle<()>,
}

impl Topics {
    pub(crate) fn start(settings: Arc<KafkaSettings>) -> Self {
        let repair = Repair(Arc::new(Notify::new()));
        let task = tokio::spawn(keep(Arc::clone(&settings), repair.clone()));
        Self { settings, repair, task }
    }

    pub(crate) fn repair(&self) -> Repair {
        self.repair.clone()
    }

    pub(crate) async fn ensure(&self) -> Result<(), BusError> {
        ensure(Arc::clone(&self.settings)).await
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(settings: Arc<KafkaSettings>, repair: Repair) {
    loop {
        repair.0.notified().await;
        while let Err(error) = ensure(Arc::clone(&settings)).await {
            tracing::debug!(%error, "topics not ensured, trying again");
            tokio::time::sleep(REPAIR_PAUSE).await;
        }
        tokio::time::sleep(REPAIR_PAUSE).await;
    }
}

/// On a thread for blocking work, as parts of the client block, its end included.
async fn ensure(settings: Arc<KafkaSettings>) -> Result<(), BusError> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(create_missing(&settings)))
        .await
        .map_err(|error| BusError::Unavailable(error.to_string()))?
        .map_err(|error| BusError::Unavailable(error.to_string()))
}

async fn create_missing(settings: &KafkaSettings) -> Result<(), KafkaError> {
    let client = AdminClient::from_config_and_context(&settings.client(), QuietContext)?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIME)).operation_timeout(Some(REQUEST_TIME));
    let (deliveries, unreadable) = (settings.deliveries_topic(), settings.unreadable_topic());
    let topics = [topic(settings, &deliveries, settings.partitions), topic(settings, &unreadable, 1)];
    let refusal = match client.create_topics(&topics, &options).await {
        Ok(answers) => answers.into_iter().find_map(refusal),
        Err(error) => Some(error),
    };
    // A refusal is none where the topics are there: created by an operator, while we may not.
    for _ in 0..LOOKS {
        let (there, unreadable) = (ready(&client, &deliveries)?, ready(&client, &unreadable)?);
        if let (Some(there), Some(_)) = (there, unreadable) {
            if there < usize::from(settings.partitions) {
                let wanted = NewPartitions::new(&deliveries, usize::from(settings.partitions));
                let added = client.create_partitions(&[wanted], &options).await;
                // It works with fewer, too.
                tracing::info!(?added, there, wanted = settings.partitions, "partitions added");
            }
            return Ok(());
        }
        if let Some(error) = refusal {
            return Err(error);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(KafkaError::AdminOp(RDKafkaErrorCode::LeaderNotAvailable))
}

/// Why a topic was not created, unless it is there.
fn refusal(answer: TopicResult) -> Option<KafkaError> {
    match answer {
        Ok(name) => {
            tracing::info!(topic = name, "topic created");
            None
        }
        Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => None,
        Err((name, code)) => {
            tracing::warn!(topic = name, %code, "topic not created");
            Some(KafkaError::AdminOp(code))
        }
    }
}

fn topic<'a>(settings: &KafkaSettings, name: &'a str, partitions: u16) -> NewTopic<'a> {
    // -1: the brokers' own number (KIP-464, from Kafka 2.4 on).
    let copies = settings.replication.map_or(-1, i32::from);
    let topic = NewTopic::new(name, i32::from(partitions), TopicReplication::Fixed(copies));
    // One copy may be away, and an acknowledged message still has two.
    if copies >= 3 { topic.set("min.insync.replicas", "2") } else { topic }
}

/// How many partitions the topic has, once each has a leader.
fn ready(client: &AdminClient<QuietContext>, topic: &str) -> Result<Option<usize>, KafkaError> {
    let metadata = client.inner().fetch_metadata(Some(topic), REQUEST_TIME)?;
    let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
    let partitions = known.map(|known| known.partitions()).filter(|partitions| !partitions.is_empty());
    Ok(partitions.filter(|partitions| partitions.iter().all(|partition| partition.leader() >= 0)).map(<[_]>::len))
}
