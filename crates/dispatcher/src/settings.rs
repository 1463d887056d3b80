//! How the dispatcher works.

use std::{fmt, sync::Arc, time::Duration};

use signalpost_limits::CLAIM_LEASE;

use crate::Observer;

/// How the dispatcher works. The defaults suit both deployments.
#[derive(Clone)]
pub struct Settings {
    /// Is told of every attempt (the terminal of `dev`).
    pub observer: Option<Arc<dyn Observer>>,
    /// A delivery that is older is not tried again: it ends as `expired`.
    pub max_age: Duration,
    /// Requests out at once, over all destinations. One destination never takes more than what is left free.
    pub max_in_flight: usize,
    /// Memory of payloads that travel by reference, in bytes: those that are being sent at once take no more, each counted as
    /// it was read and as it is sent. Others wait for a while, then go back to the store.
    pub max_large_bytes: usize,
    /// Messages in hand and not yet sent, over all destinations. At this many, nothing more is received.
    pub max_queued: usize,
    /// The same in bytes of `data`.
    pub max_queued_bytes: usize,
    /// Messages taken from the bus at once.
    pub receive_batch: usize,
    /// How far the newest message of a partition may be ahead of the oldest unfinished one, in messages: what a crash makes
    /// a successor read again.
    pub max_gap: usize,
    /// What waits in hand for longer is parked in the store.
    pub max_wait: Duration,
    /// How long a parked delivery, and its destination's queue with it, rests in the store.
    pub park: Duration,
    /// A request that is out for longer is detached.
    pub detach_after: Duration,
    /// How long after its time-out a detached request is given up for lost.
    pub detach_grace: Duration,
    /// Outcomes unwritten for longer stop new requests.
    pub max_unwritten: Duration,
    /// Outcomes written in one transaction at most.
    pub write_batch: usize,
    /// How often changes of destinations are asked for, apart from being told.
    pub poll: Duration,
    /// A fresh message that is older is checked against the store before it is sent. No longer than a claim lasts: whoever
    /// cancelled a delivery leaves its claim standing.
    pub suspect_after: Duration,
    /// How long a drain waits for requests that are out.
    pub drain: Duration,
    /// Destinations kept in memory.
    pub cached_destinations: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            observer: None,
            max_age: Duration::from_secs(14 * 24 * 60 * 60),
            max_in_flight: 2048,
            max_large_bytes: 256 * 1024 * 1024,
            max_queued: 8192,
            max_queued_bytes: 64 * 1024 * 1024,
            receive_batch: 512,
            max_gap: 65_536,
            max_wait: Duration::from_secs(2),
            park: Duration::from_secs(1),
            detach_after: Duration::from_secs(1),
            detach_grace: Duration::from_secs(10),
            max_unwritten: Duration::from_secs(1),
            write_batch: 1000,
            poll: Duration::from_millis(500),
            suspect_after: CLAIM_LEASE,
            drain: Duration::from_secs(20),
            cached_destinations: 20_000,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}
