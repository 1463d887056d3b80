//! The thread that reads: polls, decodes, commits, and answers rebalances.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _, OwnedHeaders},
};
use signalpost_bus::{Partition, codec};
use signalpost_core::Clock;

use super::{
    looks::{Activity, Looks},
    shared::{Found, Raw, Shared},
};
use crate::{
    context,
    observer::{Asking, offsets},
    settings::KafkaSettings,
    topics::Repair,
};

/// How long one poll waits; also how soon the end is noticed.
const POLL_TIME: Duration = Duration::from_millis(50);

/// Between two commits.
const COMMIT_PAUSE: Duration = Duration::from_millis(250);

/// How many messages are handed over at once.
const MOST_AT_ONCE: usize = 500;

/// How long to wait for room before reading is paused.
const ROOM_TIME: Duration = Duration::from_millis(200);

/// How long asking for watermarks may take.
const WATERMARK_TIME: Duration = Duration::from_secs(2);

/// Between two looks whether what is there comes. Longer than any fetch that works takes.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// How long a look may take: nothing is read meanwhile.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// How long the end of a client that is replaced is waited for: its partitions are let go of, and what was done is committed.
const END_TIME: Duration = Duration::from_secs(8);

/// Before a failed client is built anew, and before unknown watermarks are asked for again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

struct ReaderContext {
    /// The number of this client.
    client: u32,
    shared: Arc<Shared>,
    topic: String,
}

impl ReaderContext {
    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        let highs = match watermarks(consumer, &self.topic, partitions) {
            Ok(highs) => highs,
            Err(error) => {
                tracing::debug!(%error, "watermarks not known yet: all messages are suspects");
                BTreeMap::new()
            }
        };
        let highs = partitions.iter().map(|partition| (*partition, highs.get(partition).copied())).collect();
        self.shared.assign(self.client, &highs);
        if !partitions.is_empty() {
            tracing::info!(?partitions, "partitions assigned");
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList, partitions: &[Partition]) {
        let lost = consumer.assignment_lost();
        self.shared.revoke(self.client, partitions, lost);
        if !lost {
            commit(consumer, self.client, &self.shared, &self.topic);
        }
        self.shared.forget(self.client, partitions);
        // A pause of ours is not to outlive the assignment.
        if let Err(error) = consumer.resume(list) {
            tracing::debug!(%error, "revoked partitions not resumed");
        }
    }
}

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::error(&error, reason);
    }
}

impl ConsumerContext for ReaderContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assigned(consumer, &partitions(list)),
            Rebalance::Revoke(list) => self.revoked(consumer, list, &partitions(list)),
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed"),
        }
    }
}

pub(super) struct Reader {
    settings: Arc<KafkaSettings>,
    topic: String,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    repair: Repair,
    /// For looks. Of its own: the client that reads may have wrong ideas.
    asking: Asking,
    consumer: BaseConsumer<ReaderContext>,
    /// The number of that client.
    client: u32,
    committed_at: Duration,
    asked_at: Duration,
    looked_at: Duration,
    /// What they found so far.
    looks: Looks,
    /// Since the last look the client had nothing for us at least once.
    ran_dry: bool,
    /// Since then it was told to pause.
    rested: bool,
    paused: bool,
}

impl Reader {
    pub(super) fn new(
        settings: Arc<KafkaSettings>,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        repair: Repair,
    ) -> Result<Self, KafkaError> {
        let topic = settings.deliveries_topic();
        let consumer = subscribe(&settings.consumer(), 0, &shared, &topic)?;
        let asking = Asking::new(Arc::clone(&settings), Arc::clone(&clock), repair.clone());
        let now = clock.elapsed();
        Ok(Self {
            settings,
            topic,
            shared,
            clock,
            repair,
            asking,
            consumer,
            client: 0,
            committed_at: now,
            asked_at: now,
            looked_at: now,
            looks: Looks::default(),
            ran_dry: false,
            rested: false,
            paused: false,
        })
    }

    /// Until the dispatcher's half is closed.
    pub(super) fn run(&mut self) {
        while !self.shared.is_closed() {
            if let Err(error) = self.turn() {
                tracing::warn!(%error, "the kafka consumer failed for good and is replaced");
                self.shared.fail(error.to_string());
                self.replace();
            } else if self.is_stuck() {
                tracing::warn!("kafka has messages that do not come; the kafka consumer is replaced");
                self.looks.be_patient();
                self.replace();
            }
        }
        commit(&self.consumer, self.client, &self.shared, &self.topic);
    }

    /// One poll and what is due besides.
    ///
    /// # Errors
    /// This client does nothing any more.
    fn turn(&mut self) -> Result<(), KafkaError> {
        let now = self.clock.elapsed();
        if now.saturating_sub(self.committed_at) >= COMMIT_PAUSE {
            self.committed_at = now;
            commit(&self.consumer, self.client, &self.shared, &self.topic);
        }
        if now.saturating_sub(self.asked_at) >= RETRY_PAUSE {
            self.asked_at = now;
            self.ask_again();
        }
        self.pause_or_resume();

        let mut found = Vec::new();
        let mut time = POLL_TIME;
        while found.len() < MOST_AT_ONCE {
            match self.consumer.poll(time) {
                Some(Ok(message)) => found.push((message.partition(), message.offset(), find(&message))),
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Some(Err(error)) => self.tell(&error),
                None => {
                    self.ran_dry |= found.is_empty();
                    break;
                }
            }
            time = Duration::ZERO;
        }
        if !found.is_empty() {
            self.shared.arrive(found.into_iter());
            // Partitions that came to us since the pause are read: they must rest, too.
            if self.paused && self.shared.is_full() {
                self.with_assignment(|consumer, list| consumer.pause(list));
            }
        }
        Ok(())
    }

    /// A dispatcher that takes nothing stops the reading, not the polling: rebalances go on.
    fn pause_or_resume(&mut self) {
        self.rested |= self.paused;
        if self.paused {
            if self.shared.has_room() && self.with_assignment(|consumer, list| consumer.resume(list)) {
                self.paused = false;
            }
            return;
        }
        if self.shared.is_full() {
            self.shared.wait_for_room(ROOM_TIME);
            if self.shared.is_full() {
                self.paused = self.with_assignment(|consumer, list| consumer.pause(list));
            }
        }
    }

    /// Whether messages lie in Kafka that this client should read, and does not. So it stays for ever where the topic was made anew
    /// unseen: librdkafka takes the leader of the new one for an outdated one, as its epoch is lower
    /// (`rd_kafka_toppar_leader_update`); or where the topic came back while its loss was still being answered.
    fn is_stuck(&mut self) -> bool {
        let now = self.clock.elapsed();
        if now.saturating_sub(self.looked_at) < LOOK_PAUSE {
            return false;
        }
        let activity = match (std::mem::take(&mut self.rested) || self.paused, std::mem::take(&mut self.ran_dry)) {
            (true, _) => Activity::Paused,
            (false, true) => Activity::Idle,
            (false, false) => Activity::Busy,
        };
        let read = self.shared.read();
        let found = self.asking.ask(|observer| observer.standings(LOOK_TIME));
        self.looked_at = self.clock.elapsed();
        match found {
            Ok(Some(standings)) => {
                let known = |(partition, standing): (_, Result<_, _>)| Some((partition, standing.ok()?));
                let standings = standings.into_iter().filter_map(known).collect();
                self.shared.check_commits(&standings);
                self.looks.add(&read, &standings, activity)
            }
            // The topic is missing, and is being made.
            Ok(None) => {
                self.looks.start_anew();
                false
            }
            Err(error) => {
                tracing::debug!(%error, "not known whether there is more to read");
                self.looks.start_anew();
                false
            }
        }
    }

    fn with_assignment(
        &self,
        act: impl Fn(&BaseConsumer<ReaderContext>, &TopicPartitionList) -> KafkaResult<()>,
    ) -> bool {
        let done = self.consumer.assignment().and_then(|list| act(&self.consumer, &list));
        if let Err(error) = &done {
            tracing::debug!(%error, "partitions neither paused nor resumed");
        }
        done.is_ok()
    }

    fn ask_again(&self) {
        let unknown = self.shared.without_high();
        if unknown.is_empty() {
            return;
        }
        match watermarks(&self.consumer, &self.topic, &unknown) {
            Ok(highs) => self.shared.set_highs(&highs),
            Err(error) => tracing::debug!(%error, "watermarks still not known"),
        }
    }

    fn tell(&self, error: &KafkaError) {
        tracing::debug!(%error, "kafka consumer error");
        if matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownPartition
            )
        ) {
            self.repair.request();
        }
        self.shared.fail(error.to_string());
    }

    fn replace(&mut self) {
        self.shared.wait_for_end(RETRY_PAUSE);
        if self.shared.is_closed() {
            return;
        }
        let client = self.client.wrapping_add(1);
        match subscribe(&self.settings.consumer(), client, &self.shared, &self.topic) {
            Ok(consumer) => {
                end(std::mem::replace(&mut self.consumer, consumer), &self.shared);
                self.client = client;
                self.paused = false;
                self.looks.start_anew();
                if !self.shared.is_closed() {
                    // What the failed one held, and did not give back at its end, is somebody else's by now.
                    self.shared.switch_to(client);
                }
            }
            Err(error) => tracing::error!(%error, "no new kafka consumer"),
        }
    }
}

/// Ends a client that is replaced. One that is wedged may never end: its thread is left to it.
fn end(consumer: BaseConsumer<ReaderContext>, shared: &Shared) {
    let (ended, end) = mpsc::channel();
    let thread = thread::Builder::new().name("kafka-consumer-end".to_owned()).spawn(move || {
        drop(consumer);
        let _nobody_waits = ended.send(());
    });
    if let Err(error) = thread {
        // The client has ended with what was to run there.
        tracing::error!(%error, "no thread for the end of a kafka consumer");
        return;
    }
    for _ in 0..END_TIME.as_millis() / POLL_TIME.as_millis() {
        let has_ended = end.recv_timeout(POLL_TIME) != Err(RecvTimeoutError::Timeout);
        if has_ended || shared.is_closed() {
            return;
        }
    }
    tracing::warn!("the kafka consumer that is replaced does not end; it is left behind");
}

fn subscribe(
    config: &ClientConfig,
    client: u32,
    shared: &Arc<Shared>,
    topic: &str,
) -> KafkaResult<BaseConsumer<ReaderContext>> {
    let context = ReaderContext { client, shared: Arc::clone(shared), topic: topic.to_owned() };
    let consumer = BaseConsumer::from_config_and_context(config, context)?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

/// Hands the commits to librdkafka, which sends them without our waiting, in order with what follows (a rebalance, the
/// end). It tells nobody what fails there: that is found at the next look.
fn commit(consumer: &BaseConsumer<ReaderContext>, client: u32, shared: &Shared, topic: &str) {
    let offsets = shared.uncommitted(client);
    if offsets.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    let listed = offsets
        .iter()
        .try_for_each(|(partition, offset)| list.add_partition_offset(topic, *partition, Offset::Offset(*offset)));
    if let Err(error) = listed.and_then(|()| consumer.commit(&list, CommitMode::Async)) {
        tracing::debug!(%error, "commit not sent");
        shared.commit_failed(offsets.into_iter().map(|(partition, _)| partition));
    }
}

fn watermarks(
    consumer: &BaseConsumer<ReaderContext>,
    topic: &str,
    partitions: &[Partition],
) -> KafkaResult<BTreeMap<Partition, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, Offset::End)?;
    }
    offsets(&consumer.offsets_for_times(list, WATERMARK_TIME)?)
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| element.partition()).collect()
}

/// Decodes, or keeps the bytes of what cannot be.
fn find(message: &BorrowedMessage<'_>) -> Found {
    let header = |name: &str| message.headers()?.iter().find(|header| header.key == name)?.value;
    let value = message.payload().map(Bytes::copy_from_slice);
    let decoded = value.as_ref().map(|value| codec::decode(header(codec::VERSION_HEADER), value));
    let error = match decoded {
        Some(Ok(decoded)) => {
            return Found::Message { message: Arc::new(decoded), bytes: message.payload_len() };
        }
        Some(Err(error)) => error.to_string(),
        None => "no value".to_owned(),
    };
    Found::Undecodable {
        delivery_id: codec::delivery_id(header(codec::DELIVERY_HEADER)),
        raw: Box::new(Raw {
            key: message.key().map(<[u8]>::to_vec),
            headers: message.headers().map_or_else(OwnedHeaders::new, |headers| headers.detach()),
            value: message.payload().map(<[u8]>::to_vec),
            error,
        }),
    }
}
