//! What is posted, and how fast.

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{load::Pace, wire::Prepared};

/// One load.
#[derive(Debug, Clone)]
pub struct Load {
    /// For the progress bar.
    pub what: Cow<'static, str>,
    /// The requests that take turns.
    pub requests: Requests,
    /// How many events, about: whole requests are sent.
    pub events: u64,
    /// When they are due.
    pub pace: Pace,
    /// To how many destinations each event goes.
    pub fan: u64,
    /// Every so-manieth request repeats the one before; 0: none.
    pub repeat_every: u64,
    /// How long nothing may arrive before what is missing counts as lost.
    pub patience: Duration,
}

/// Requests that are made before the run.
#[derive(Debug, Clone)]
pub struct Requests {
    /// They take turns.
    pub all: Arc<[Prepared]>,
    /// Events in each.
    pub batch: u64,
}

impl Load {
    /// As fast as they are answered, each to one destination.
    pub fn closed(what: impl Into<Cow<'static, str>>, requests: Requests, events: u64) -> Self {
        let patience = Duration::from_secs(30);
        Self { what: what.into(), requests, events, pace: Pace::Closed, fan: 1, repeat_every: 0, patience }
    }

    /// So many events each second, for that long.
    pub fn steady(what: &'static str, requests: Requests, rate: f64, length: Duration) -> Self {
        let events = u64::try_from(crate::scenarios::whole(rate * length.as_secs_f64())).unwrap_or(1);
        Self { pace: Pace::PerSecond(rate), ..Self::closed(what, requests, events) }
    }

    /// Each event goes to so many destinations.
    #[must_use]
    pub fn fan(self, fan: u64) -> Self {
        Self { fan, ..self }
    }

    /// Every so-manieth request repeats the one before.
    #[must_use]
    pub fn repeating(self, every: u64) -> Self {
        Self { repeat_every: every, ..self }
    }

    /// How many deliveries are to arrive.
    pub fn deliveries(&self) -> u64 {
        let requests = self.requests();
        let repeats = requests.checked_div(self.repeat_every).unwrap_or(0);
        (requests - repeats) * self.requests.batch * self.fan
    }

    /// How many requests are sent.
    pub fn requests(&self) -> u64 {
        self.events.div_ceil(self.requests.batch).max(1)
    }
}
