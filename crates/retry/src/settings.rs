//! How often, and how much at once. The defaults are those of a cluster.

use std::time::Duration;

use signalpost_store::{FEED_LEASE, schedule::Retention};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Settings of all jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How often old outbox records are looked for.
    pub relay_every: Duration,
    /// From which age a record is the relay's. The API owns it for 5 s; twice that leaves room for a slow clock.
    pub relay_older_than: Duration,
    /// The most outbox records in one transaction.
    pub relay_records: usize,
    /// The bus is memory of this process: what an earlier one handed to it, or was about to, is lost, so all of it is
    /// anchored at the start. Call [`crate::recover`] before anything is accepted.
    pub bus_is_memory: bool,

    /// The longest pause of the feed between two looks: how late something may be that became due unforeseen.
    pub feed_poll: Duration,
    /// The most deliveries taken at once.
    pub feed_most: usize,
    /// The most of them for one destination.
    pub feed_per_destination: usize,
    /// How long a delivery that was fed is left to the bus. After a crash it may be late by as much.
    pub feed_lease: Duration,
    /// Above so many uncommitted messages on the bus the feed only trickles: leases would run out on it.
    pub most_on_bus: usize,

    /// How often lost deliveries are looked for.
    pub reconcile_every: Duration,
    /// How much later than acceptance something may still have been handed to the bus: the 10 s after which the relay
    /// takes over, and the clocks' differences.
    pub reconcile_margin: Duration,
    /// The most deliveries looked at in one transaction.
    pub reconcile_chunk: usize,

    /// How often large fan-outs are looked for.
    pub fan_out_every: Duration,
    /// The most deliveries created in one transaction.
    pub fan_out_chunk: usize,

    /// How often replay jobs are looked at.
    pub replay_every: Duration,
    /// The most deliveries created in one transaction.
    pub replay_chunk: usize,

    /// How often deleted destinations and tenants are swept.
    pub sweep_every: Duration,
    /// The most deliveries cancelled, or rows of a tenant removed, in one transaction.
    pub sweep_chunk: usize,

    /// How often it is looked for destinations that have failed for too long.
    pub disable_every: Duration,
    /// The most destinations disabled in one transaction.
    pub disable_chunk: usize,

    /// How often partitions are made; also at the start.
    pub partitions_every: Duration,
    /// How many days ahead.
    pub partition_days: u32,

    /// How often retention runs.
    pub retain_every: Duration,
    /// The pause between two of its chunks, and between two of a tenant that is being deleted, so that it never crowds out what matters.
    pub retain_pause: Duration,
    /// How long things are kept.
    pub retention: Retention,

    /// How often the gauges are sampled.
    pub sample_every: Duration,

    /// A delivery older than this is not tried again.
    pub max_age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            relay_every: Duration::from_secs(1),
            relay_older_than: Duration::from_secs(10),
            relay_records: 200,
            bus_is_memory: false,
            feed_poll: Duration::from_millis(200),
            feed_most: 1000,
            feed_per_destination: 1000,
            feed_lease: FEED_LEASE,
            most_on_bus: 100_000,
            reconcile_every: Duration::from_secs(5),
            reconcile_margin: Duration::from_secs(15),
            reconcile_chunk: 1000,
            fan_out_every: Duration::from_millis(200),
            fan_out_chunk: 1000,
            replay_every: Duration::from_millis(250),
            replay_chunk: 500,
            sweep_every: Duration::from_secs(1),
            sweep_chunk: 1000,
            disable_every: Duration::from_secs(60),
            disable_chunk: 100,
            partitions_every: HOUR,
            partition_days: 7,
            retain_every: HOUR,
            retain_pause: Duration::from_millis(200),
            retention: Retention { events: 30 * DAY, dead_letters: 30 * DAY, audit: 365 * DAY, chunk: 1000 },
            sample_every: Duration::from_secs(2),
            max_age: 14 * DAY,
        }
    }
}

impl Settings {
    /// Those of one process with a bus in its memory: it looks more often, because looking is cheap, and knows at the start
    /// that everything on the bus is lost.
    pub fn standalone() -> Self {
        Self {
            bus_is_memory: true,
            feed_poll: Duration::from_millis(20),
            // A take costs little more than its rows, and small ones flow more evenly.
            feed_per_destination: 250,
            // The process that could have the message has died with it. Long enough for what waits on the bus.
            feed_lease: Duration::from_secs(15),
            most_on_bus: 10_000,
            reconcile_margin: Duration::ZERO,
            fan_out_every: Duration::from_millis(100),
            replay_every: Duration::from_millis(100),
            ..Self::default()
        }
    }
}
