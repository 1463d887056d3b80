//! What may grow, and how it is called.

use clap::ValueEnum;
use serde::Serialize;

use crate::{flow::figure, report::number};

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Destinations; each event goes to one of them.
    Destinations,
    /// Tenants, each with a key and a destination of its own.
    Tenants,
    /// Events, with their deliveries, that the store has already.
    Stored,
    /// Destinations that each event goes to.
    Fan,
    /// Bytes of the data of an event.
    Bytes,
    /// Dispatchers of a cluster.
    Dispatchers,
}

impl Of {
    /// The sizes, where none are named.
    pub fn points(self) -> &'static [u64] {
        match self {
            Self::Destinations => &[10, 100, 1_000, 10_000],
            Self::Tenants => &[1, 10, 100, 1_000],
            Self::Stored => &[0, 100_000, 1_000_000, 10_000_000],
            Self::Fan => &[1, 2, 5, 20, 50],
            Self::Bytes => &[512, 2_048, 7_168, 51_200],
            Self::Dispatchers => &[1, 2, 3],
        }
    }

    /// What is counted.
    pub fn counted(self) -> &'static str {
        match self {
            Self::Destinations => "destinations",
            Self::Tenants => "tenants",
            Self::Stored => "events stored",
            Self::Fan => "destinations of an event",
            Self::Bytes => "bytes of an event",
            Self::Dispatchers => "dispatchers",
        }
    }

    /// A size, in words.
    pub fn sized(self, size: u64) -> String {
        format!("{} {}", number(figure(size)), self.counted())
    }

    /// As the command line names it: how files begin.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
