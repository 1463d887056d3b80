//! What our services stand on: PostgreSQL, Redis, Kafka.

use std::path::Path;

use crate::{
    Kafka, Postgres, Redis,
    kafka::{self, Listener},
};

/// The three, running. Started before our services, so that something can be put between the two.
#[derive(Debug)]
pub struct Ground {
    /// The bus.
    pub kafka: Kafka,
    /// The limits.
    pub redis: Redis,
    /// The store.
    pub postgres: Postgres,
}

impl Ground {
    /// Starts all three. `cache`: where the jars of Kafka are kept; `durable`: PostgreSQL with fsync; `listeners`: further
    /// ones of the broker.
    ///
    /// # Errors
    /// Something is missing or does not start; with the end of its log.
    pub fn start(cache: &Path, durable: bool, listeners: &[Listener]) -> anyhow::Result<Self> {
        let jars = kafka::jars(cache)?;
        let postgres = Postgres::start(durable)?;
        let redis = Redis::start()?;
        let kafka = Kafka::start_with(&jars, listeners)?;
        Ok(Self { kafka, redis, postgres })
    }
}
