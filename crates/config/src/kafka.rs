//! `SIGNALPOST_KAFKA_<PROPERTY>` and `[kafka]`: properties that go to librdkafka as they are.

use std::{collections::BTreeMap, fmt};

use crate::{ConfigError, error::nearest, setting::PREFIX, settings::Kafka};

/// What follows the prefix in settings of Kafka.
pub(crate) const KAFKA: &str = "KAFKA_";

/// What we set ourselves, because the promises to producers rest on it; and what to set instead.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "set SIGNALPOST_KAFKA_BROKERS"),
    ("metadata.broker.list", "set SIGNALPOST_KAFKA_BROKERS"),
    ("group.id", "set SIGNALPOST_KAFKA_CONSUMER_GROUP"),
    ("enable.auto.commit", "offsets are committed by what has been done"),
    ("enable.auto.offset.store", "offsets are committed by what has been done"),
    ("auto.offset.reset", "new partitions are read from their start"),
    ("acks", "a message counts when the broker has it"),
    ("request.required.acks", "a message counts when the broker has it"),
];

/// Properties by librdkafka's names, in order. `Debug` shows the names alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds one. The first that was added holds.
    pub(crate) fn add(&mut self, found: &str, property: &str, value: String) -> Result<(), ConfigError> {
        if let Some((_, instead)) = OURS.iter().find(|(name, _)| *name == property) {
            let problem = format!("sets `{property}`, which Signalpost sets itself: {instead}");
            return Err(ConfigError::Invalid { name: found.to_owned(), value: None, problem });
        }
        self.0.entry(property.to_owned()).or_insert(value);
        Ok(())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Properties {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(properties: I) -> Self {
        Self(properties.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// librdkafka's name of what a variable names after the prefix.
pub(crate) fn property_of(name: &str) -> String {
    name.to_lowercase().replace('_', ".")
}

/// Whether a property's value is not for everybody's eyes, so that it may come from a file.
pub(crate) fn is_secret(property: &str) -> bool {
    ["password", "secret", "passphrase", "pem"].iter().any(|ending| property.ends_with(ending))
}

/// A setting of our own that was probably meant by the name of a property: librdkafka has none so like them.
pub(crate) fn misspelt(name: &str) -> Option<String> {
    let own = Kafka::SETTINGS.iter().map(|setting| setting.name);
    let near = nearest(name, own.clone().filter(|known| strsim::levenshtein(name, known) <= 2))?;
    Some(format!("{PREFIX}{near}"))
}
