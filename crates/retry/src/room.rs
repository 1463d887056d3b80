//! How much more the bus should be given. Economy only: what lies on it for longer than its lease is fed a second
//! time, and the first message dropped.
//!
//! The bus is asked only when the estimate (what it said last, and what was published since) says that it is full.

use std::time::Duration;

use signalpost_bus::Bus;
use tokio::time::timeout;

/// What is fed all the same when the bus is full: what waits is never shut out by what comes anew.
const TRICKLE: usize = 32;

/// A bus that does not answer in time is taken to be empty by the feed: publishing will tell.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the bus says of its lag, where it answers in time.
pub(crate) async fn lag(bus: &dyn Bus) -> Option<u64> {
    timeout(PATIENCE, bus.lag()).await.ok().flatten()
}

#[derive(Debug, Default)]
pub(crate) struct Room {
    /// At most so many messages are on the bus, as far as we know.
    estimate: usize,
}

impl Room {
    /// How many messages may be published now.
    pub(crate) async fn on(&mut self, bus: &dyn Bus, most: usize) -> usize {
        if self.estimate >= most {
            let lag = lag(bus).await.unwrap_or(0);
            self.estimate = usize::try_from(lag).unwrap_or(usize::MAX);
        }
        most.saturating_sub(self.estimate).max(TRICKLE)
    }

    pub(crate) fn published(&mut self, messages: usize) {
        self.estimate = self.estimate.saturating_add(messages);
    }
}
