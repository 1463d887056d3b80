//! Clocks on tokio's paused time.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use signalpost_core::{Clock, Timestamp};
use tokio::time::Instant;

/// When every run begins: 2026-01-01T00:00:00Z.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// The clock of one process: its time of day is off by something, and may jump.
#[derive(Debug)]
pub struct SimClock {
    /// Of the run.
    start: Instant,
    /// Of the process.
    born: Instant,
    /// In microseconds.
    off: AtomicI64,
}

impl SimClock {
    /// A clock of a process that begins now, in a run that began at `start`.
    pub fn new(start: Instant, off: i64) -> Self {
        Self { start, born: Instant::now(), off: AtomicI64::new(off) }
    }

    /// Puts the time of day to that many microseconds off.
    pub fn jump_to(&self, off: i64) {
        self.off.store(off, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let since = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX / 4);
        Timestamp::from_micros(EPOCH_MICROS + since + self.off.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.born.elapsed()
    }
}
