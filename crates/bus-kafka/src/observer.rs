//! A client that stands beside the group of dispatchers: it asks how far the group is, and reads single messages.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use signalpost_bus::Partition;
use signalpost_core::{Clock, Timestamp};

use crate::{context::QuietContext, settings::KafkaSettings, topics::Repair};

/// How long one question may take.
const QUESTION_TIME: Duration = Duration::from_secs(2);

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

/// What was committed, seen together with what is there. A group without a commit, or whose commit lies outside of what
/// is there (retention, lost data), will read from the start.
fn standing(committed: Option<i64>, low: i64, high: i64) -> Standing {
    let next = committed.filter(|offset| (low..=high).contains(offset)).unwrap_or(low);
    Standing { next, high }
}

/// Blocks: for threads that may.
pub(crate) struct Observer {
    consumer: BaseConsumer<QuietContext>,
    topic: String,
    clock: Arc<dyn Clock>,
    repair: Repair,
}

impl Observer {
    pub(crate) fn new(settings: &KafkaSettings, clock: Arc<dyn Clock>, repair: Repair) -> Result<Self, KafkaError> {
        let consumer = BaseConsumer::from_config_and_context(&settings.observer(), QuietContext)?;
        Ok(Self { consumer, topic: settings.deliveries_topic(), clock, repair })
    }

    /// Log lines and errors gather between questions, and say nothing about the next one.
    pub(crate) fn clear(&self) {
        while self.consumer.poll(Duration::from_millis(1)).is_some() {}
    }

    pub(crate) fn lag(&self) -> Result<Option<u64>, KafkaError> {
        let Some(standings) = self.standings()? else { return Ok(None) };
        let behind = standings.values().map(|standing| u64::try_from(standing.high - standing.next).unwrap_or(0));
        Ok(Some(behind.sum()))
    }

    pub(crate) fn consumed_until(&self) -> Result<Option<Timestamp>, KafkaError> {
        // What is acknowledged before this moment lies below the watermarks that are read after it.
        let asked_at = self.clock.now();
        let Some(standings) = self.standings()? else { return Ok(None) };
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

    /// None where the topic is missing or not whole.
    pub(crate) fn standings(&self) -> Result<Option<BTreeMap<Partition, Standing>>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), QUESTION_TIME)?;
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
        let lows = offsets(&self.consumer.offsets_for_times(list(Some(Offset::Beginning))?, QUESTION_TIME)?)?;
        let highs = || offsets(&self.consumer.offsets_for_times(list(Some(Offset::End))?, QUESTION_TIME)?);
        let mut high_of = highs()?;
        let committed = offsets(&self.consumer.committed_offsets(list(None)?, QUESTION_TIME)?)?;
        let is_beyond =
            |(partition, offset): (&Partition, &i64)| high_of.get(partition).is_some_and(|high| offset > high);
        // What came and was done since the first look is not lost.
        if committed.iter().any(is_beyond) {
            high_of = highs()?;
        }
        let mut standings = BTreeMap::new();
        for partition in partitions {
            let of = |offsets: &BTreeMap<Partition, i64>| offsets.get(&partition).copied();
            let (Some(low), Some(high)) = (of(&lows), of(&high_of)) else { return Ok(None) };
            standings.insert(partition, standing(of(&committed), low, high));
        }
        Ok(Some(standings))
    }
}

/// The offsets in an answer. Partitions without one are left out.
///
/// # Errors
/// The broker told an error for one of them.
pub(crate) fn offsets(list: &TopicPartitionList) -> Result<BTreeMap<Partition, i64>, KafkaError> {
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
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
