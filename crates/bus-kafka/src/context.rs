//! What librdkafka tells about itself goes to our log.

use rdkafka::{ClientContext, config::RDKafkaLogLevel, error::KafkaError};

/// Writes a line of librdkafka's log as an event. Its errors are warnings here: it goes on by itself.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::debug!(facility, message, "kafka client"),
        RDKafkaLogLevel::Debug => tracing::trace!(facility, message, "kafka client"),
    }
}

/// Writes an error that concerns a whole client.
pub(crate) fn error(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, reason, "kafka client error");
}

/// The context of a client that needs no callbacks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for QuietContext {}
