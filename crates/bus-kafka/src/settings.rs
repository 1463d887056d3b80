//! What an operator sets, and what librdkafka is told.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

/// How Kafka is reached and used.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of the topics begin with.
    pub topic_prefix: String,
    /// The consumer group of the dispatchers.
    pub group: String,
    /// Partitions of the topic of deliveries, where it is created: the most dispatchers that can share the work.
    pub partitions: u16,
    /// Copies of each partition, where topics are created. None: as many as the brokers make by default.
    pub replication: Option<u16>,
    /// Anything else for librdkafka, by its names (`security.protocol`, `sasl.username`, …). Wins over our own choice,
    /// but for what correctness needs.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            topic_prefix: "signalpost".to_owned(),
            group: "signalpost-dispatcher".to_owned(),
            partitions: 12,
            replication: None,
            properties: BTreeMap::new(),
        }
    }
}

/// Settings that cannot work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the Kafka settings do not work: {0}")]
pub struct SettingsError(pub(crate) String);

/// What correctness or another setting decides.
const FIXED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
];

impl KafkaSettings {
    /// Where deliveries are.
    pub fn deliveries_topic(&self) -> String {
        format!("{}.deliveries", self.topic_prefix)
    }

    /// Where messages are kept that nobody can decode.
    pub fn unreadable_topic(&self) -> String {
        format!("{}.unreadable", self.topic_prefix)
    }

    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        if let Some(name) = self.properties.keys().find(|name| FIXED.contains(&name.as_str())) {
            return Err(SettingsError(format!("`{name}` is decided by Signalpost")));
        }
        if self.partitions == 0 || self.replication == Some(0) {
            return Err(SettingsError("there is at least one partition and one copy".to_owned()));
        }
        Ok(())
    }

    /// What all clients share.
    pub(crate) fn client(&self) -> ClientConfig {
        self.with(&[])
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        self.with(&[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            // Who publishes waits less than 5 s, and so does the owner of an outbox record.
            ("message.timeout.ms", "4000"),
            ("request.timeout.ms", "3000"),
            // A batch is handed over at once; this only lets it travel together.
            ("linger.ms", "1"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "65536"),
            // A missing topic is told soon, and created again.
            ("topic.metadata.propagation.max.ms", "1000"),
            ("topic.metadata.refresh.interval.ms", "10000"),
        ])
    }

    pub(crate) fn consumer(&self) -> ClientConfig {
        self.with(&[
            ("group.id", &self.group),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // A group without a committed offset, or with one that is gone, reads all there is: all are suspects.
            ("auto.offset.reset", "earliest"),
            // The least that brokers accept by default: the partitions of a dead dispatcher move on soon.
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
            ("max.poll.interval.ms", "60000"),
            // Modest memory per process and partition.
            ("queued.min.messages", "2000"),
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.message.max.bytes", "1048576"),
            ("fetch.max.bytes", "8388608"),
            ("fetch.queue.backoff.ms", "20"),
            // A topic that was created (again) is noticed soon.
            ("topic.metadata.refresh.interval.ms", "2000"),
        ])
    }

    /// For a consumer that never joins the group, but asks about it and reads single messages.
    pub(crate) fn observer(&self) -> ClientConfig {
        self.with(&[
            ("group.id", &self.group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "earliest"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "1024"),
            ("fetch.message.max.bytes", "131072"),
            ("fetch.queue.backoff.ms", "20"),
        ])
    }

    fn with(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "signalpost")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "10000")
            // A broker that is back is used within a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_changes_what_is_not_fixed() {
        let mut settings = KafkaSettings::default();
        settings.properties.insert("session.timeout.ms".to_owned(), "9000".to_owned());
        assert!(settings.check().is_ok());
        assert_eq!(settings.consumer().get("session.timeout.ms"), Some("9000"));
        settings.properties.insert("enable.auto.commit".to_owned(), "true".to_owned());
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "the Kafka settings do not work: `enable.auto.commit` is decided by Signalpost"
        );
    }
}
