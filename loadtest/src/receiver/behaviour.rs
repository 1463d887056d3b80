//! How one path of the receiver answers.

use std::time::Duration;

/// What a request meets: first the latency, then, with that probability, the failure, else 200.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Before any answer.
    pub latency: Duration,
    /// From 0 (never) to 1 (always).
    pub probability: f64,
    /// What a failure is.
    pub failure: Failure,
}

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// That status.
    Status(u16),
    /// No answer at all, until the client goes.
    Hang,
    /// 200, and then a byte of the body each second, without end.
    Drip,
    /// The connection is reset.
    Reset,
}

impl Behaviour {
    /// 200 at once.
    pub const OK: Self = Self { latency: Duration::ZERO, probability: 0.0, failure: Failure::Status(500) };

    /// Fails always, in that way.
    pub const fn always(failure: Failure) -> Self {
        Self { latency: Duration::ZERO, probability: 1.0, failure }
    }

    /// 500 with that probability.
    pub const fn fails(probability: f64) -> Self {
        Self { latency: Duration::ZERO, probability, failure: Failure::Status(500) }
    }

    /// The same, after that time.
    #[must_use]
    pub const fn after(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }
}
