//! A client that stands beside the group of dispatchers: it asks how far the group is, and reads single messages.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionListElem,
};
use signalpost_bus::Partition;
use signalpost_core::{Clock, Timestamp};

use crate::{context::QuietContext, settings::KafkaSettings, topics::Repair};

/// How long one question may take.
const QUESTION_TIME: Duration = Duration::from_secs(2);

/// How long all questions for one answer may take, where nobody waits behind who asks.
const QUESTIONS_TIME: Duration = Duration::from_secs(10);

/// How long reading the oldest uncommitted messages may take, all together.
const READ_TIME: Duration = Duration::from_secs(3);

/// Where the group stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The offset of the oldest message that is not committed; `high` where there is none.
    pub(crate) next: i64,
    /// The offset that the next message will get.
    pub(crate) high: i64,
}

/// Where the group stands in each partition, or why that is not known.
pub(crate) type Standings = BTreeMap<Partition, Result<Standing, KafkaError>>;

/// What was committed, seen together with what is there. A group without a commit, or whose commit lies outside of what
/// is there (retention, lost data), will read from the start.
fn standing(committed: Option<i64>, low: i64, high: i64) -> Standing {
    let next = committed.filter(|offset| (low..=high).contains(offset)).unwrap_or(low);
    Standing { next, high }
}

/// Asks through an observer that is made for the first question: most processes never ask. Blocks: for threads that may.
pub(crate) struct Asking {
    settings: Arc<KafkaSettings>,
    clock: Arc<dyn Clock>,
    repair: Repair,
    observer: Option<Observer>,
}

impl Asking {
    pub(crate) fn new(settings: Arc<KafkaSettings>, clock: Arc<dyn Clock>, repair: Repair) -> Self {
        Self { settings, clock, repair, observer: None }
    }

    pub(crate) fn ask<T>(
        &mut self,
        question: impl FnOnce(&Observer) -> Result<Option<T>, KafkaError>,
    ) -> Result<Option<T>, KafkaError> {
        let observer = match self.observer.take() {
            Some(observer) => observer,
            None => Observer::new(&self.settings, Arc::clone(&self.clock), self.repair.clone())?,
        };
        observer.clear();
        let answer = question(&observer);
        // One that reaches Kafka and does not find or read what should be there may know an older topic.
        if !matches!(answer, Ok(None)) {
            self.observer = Some(observer);
        }
        answer
    }
}

/// The client.
pub(crate) struct Observer {
    consumer: BaseConsumer<QuietContext>,
    topic: String,
    clock: Arc<dyn Clock>,
    repair: Repair,
}

impl Observer {
    fn new(settings: &KafkaSettings, clock: Arc<dyn Clock>, repair: Repair) -> Result<Self, KafkaError> {
        let consumer = BaseConsumer::from_config_and_context(&settings.observer(), QuietContext)?;
        Ok(Self { consumer, topic: settings.deliveries_topic(), clock, repair })
    }

    /// Log lines and errors gather between questions, and say nothing about the next one.
    fn clear(&self) {
        while self.consumer.poll(Duration::from_millis(1)).is_some() {}
    }

    pub(crate) fn lag(&self) -> Result<Option<u64>, KafkaError> {
        let Some(standings) = self.all_standings()? else { return Ok(None) };
        let behind = standings.values().map(|standing| u64::try_from(standing.high - standing.next).unwrap_or(0));
        Ok(Some(behind.sum()))
    }

    pub(crate) fn consumed_until(&self) -> Result<Option<Timestamp>, KafkaError> {
        // What is acknowledged before this moment lies below the watermarks that are read after it.
        let asked_at = self.clock.now();
        let Some(standings) = self.all_standings()? else { return Ok(None) };
        let behind: BTreeMap<Partition, i64> = standings
            .into_iter()
            .filter_map(|(partition, standing)| (standing.next < standing.high).then_some((partition, standing.next)))
            .collect();
        if behind.is_empty() {
            return Ok(Some(asked_at));
        }
        let oldest = self.oldest(&behind);
        // The assignment ends whatever came of reading.
        self.consumer.unassign()?;
        Ok(oldest?.map(|oldest| oldest.min(asked_at)))
    }

    /// The earliest time of the messages at these offsets. None: one could not be read in time.
    fn oldest(&self, behind: &BTreeMap<Partition, i64>) -> Result<Option<Timestamp>, KafkaError> {
        let mut places = TopicPartitionList::with_capacity(behind.len());
        for (partition, offset) in behind {
            places.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer.assign(&places)?;
        let mut times = BTreeMap::new();
        let deadline = self.clock.elapsed() + READ_TIME;
        while times.len() < behind.len() {
            let left = deadline.saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // An error is one of the connection, which is made again; the deadline bounds it.
            let Some(Ok(message)) = self.consumer.poll(left.min(Duration::from_millis(100))) else { continue };
            let Some(at) = message.timestamp().to_millis() else { return Ok(None) };
            times.entry(message.partition()).or_insert(Timestamp::from_millis(at));
        }
        Ok(times.into_values().min())
    }

    /// Where the group stands in every partition. None where the topic is missing or not whole.
    ///
    /// # Errors
    /// Kafka does not answer, or not for each partition.
    fn all_standings(&self) -> Result<Option<BTreeMap<Partition, Standing>>, KafkaError> {
        let Some(standings) = self.standings(QUESTIONS_TIME)? else { return Ok(None) };
        standings
            .into_iter()
            .map(|(partition, standing)| Ok((partition, standing?)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Where the group stands in each partition, as far as Kafka knows, which may take all of `time`. None where the topic is
    /// missing.
    ///
    /// # Errors
    /// Kafka does not answer in time.
    pub(crate) fn standings(&self, time: Duration) -> Result<Option<Standings>, KafkaError> {
        let deadline = self.clock.elapsed() + time;
        let left = || deadline.saturating_sub(self.clock.elapsed()).clamp(Duration::from_millis(1), QUESTION_TIME);
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), left())?;
        let known = metadata.topics().iter().find(|topic| topic.name() == self.topic && topic.error().is_none());
        let partitions: Vec<Partition> =
            known.iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
        if partitions.is_empty() {
            self.repair.request();
            return Ok(None);
        }
        let list = |offset: Option<Offset>| -> Result<TopicPartitionList, KafkaError> {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for partition in &partitions {
                match offset {
                    Some(offset) => list.add_partition_offset(&self.topic, *partition, offset)?,
                    None => drop(list.add_partition(&self.topic, *partition)),
                }
            }
            Ok(list)
        };
        // In this order: what is committed cannot be less than what was done when the watermark was read.
        let lows = each(&self.consumer.offsets_for_times(list(Some(Offset::Beginning))?, left())?);
        let highs = || -> Result<_, KafkaError> {
            Ok(each(&self.consumer.offsets_for_times(list(Some(Offset::End))?, left())?))
        };
        let mut high_of = highs()?;
        let committed = each(&self.consumer.committed_offsets(list(None)?, left())?);
        let is_beyond = |(partition, committed): (&Partition, &Result<Option<i64>, KafkaError>)| {
            let known = |of: &BTreeMap<_, Result<Option<i64>, _>>| of.get(partition)?.as_ref().ok().copied().flatten();
            matches!((committed, known(&high_of)), (Ok(Some(committed)), Some(high)) if *committed > high)
        };
        // What came and was done since the first look is not lost.
        if committed.iter().any(is_beyond) {
            high_of = highs()?;
        }
        let of = |offsets: &BTreeMap<Partition, Result<Option<i64>, KafkaError>>, partition| {
            offsets.get(&partition).cloned().unwrap_or(Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition)))
        };
        let watermark = |offsets, partition| {
            of(offsets, partition)?.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::LeaderNotAvailable))
        };
        let standing_in = |partition| {
            let (low, high) = (watermark(&lows, partition)?, watermark(&high_of, partition)?);
            Ok(standing(of(&committed, partition)?, low, high))
        };
        Ok(Some(partitions.into_iter().map(|partition| (partition, standing_in(partition))).collect()))
    }
}

/// The offset of each partition in an answer: None where there is none, or what the broker told instead.
fn each(list: &TopicPartitionList) -> BTreeMap<Partition, Result<Option<i64>, KafkaError>> {
    let offset = |element: &TopicPartitionListElem<'_>| {
        element.error()?;
        Ok(if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None })
    };
    list.elements().iter().map(|element| (element.partition(), offset(element))).collect()
}

/// The offsets in an answer. Partitions without one are left out.
///
/// # Errors
/// The broker told an error for one of them.
pub(crate) fn offsets(list: &TopicPartitionList) -> Result<BTreeMap<Partition, i64>, KafkaError> {
    let known =
        |(partition, offset): (_, Result<Option<i64>, _>)| Some(offset.transpose()?.map(|offset| (partition, offset)));
    each(list).into_iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_where_it_lies_in_what_is_there() {
        for (committed, low, high, next) in [
            (Some(5), 0, 9, 5),
            (Some(9), 0, 9, 9),
            (Some(0), 0, 0, 0),
            // Nothing committed yet.
            (None, 3, 9, 3),
            // Retention went past it.
            (Some(2), 3, 9, 3),
            // The data is gone, the commit is not.
            (Some(50), 0, 9, 0),
        ] {
            assert_eq!(standing(committed, low, high), Standing { next, high }, "{committed:?} in {low}..{high}");
        }
    }
}
