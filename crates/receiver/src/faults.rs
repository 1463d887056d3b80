//! How a receiver misbehaves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a receiver does instead of answering 200. Serialised for the control paths, where every field may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Which share of the requests fails, 0 to 1.
    pub rate: f64,
    /// How many requests of each delivery fail before `rate` decides.
    pub first: u32,
    /// How they fail.
    pub failure: Failure,
    /// Passes before any answer, failed or not.
    pub latency_ms: u64,
    /// `Retry-After` of failed answers, in seconds.
    pub retry_after_seconds: Option<u64>,
}

impl Faults {
    /// Answers 200 to everything.
    pub fn none() -> Self {
        Self { rate: 0.0, first: 0, failure: Failure::default(), latency_ms: 0, retry_after_seconds: None }
    }

    /// Every request fails so.
    pub fn always(failure: Failure) -> Self {
        Self { rate: 1.0, failure, ..Self::none() }
    }

    /// A share of the requests fails so.
    pub fn some(rate: f64, failure: Failure) -> Self {
        Self { rate, failure, ..Self::none() }
    }

    /// The first requests of each delivery fail so, later ones not.
    pub fn first(first: u32, failure: Failure) -> Self {
        Self { first, failure, ..Self::none() }
    }

    /// The same, and slow.
    #[must_use]
    pub fn with_latency(mut self, latency: Duration) -> Self {
        self.latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The same, with `Retry-After` where it fails.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// One way to fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// An answer with that status (which may be a 2xx).
    Status(u16),
    /// No answer, and the connection stays open.
    Hang,
    /// The head at once, then the body byte by byte with a pause before each.
    Drip {
        /// Of the answer.
        status: u16,
        /// How many bytes.
        bytes: usize,
        /// Before each byte.
        pause_ms: u64,
    },
    /// The connection is reset (RST) once the request has been read.
    Reset,
    /// An answer with a body of that size.
    BigBody {
        /// Of the answer.
        status: u16,
        /// How many bytes.
        bytes: u64,
    },
    /// 302 to that URL.
    Redirect(String),
}

impl Failure {
    /// An answer with that status.
    pub const fn status(status: u16) -> Self {
        Self::Status(status)
    }
}

impl Default for Failure {
    fn default() -> Self {
        Self::Status(500)
    }
}
