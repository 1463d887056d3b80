//! What a seed makes of a run: how large it is, and which faults it has. Each fault is off in some seeds, so that those
//! that hide each other meet alone, too.

use crate::seed::Rng;

/// The shape of a run.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// API processes.
    pub apis: usize,
    /// Dispatcher processes.
    pub dispatchers: usize,
    /// Retry processes.
    pub retries: usize,
    /// Destinations at the start.
    pub destinations: usize,
    /// Partitions of the bus.
    pub partitions: i32,
    /// Messages of one destination lie in any partition, not in one: several dispatchers send to it.
    pub scattered: bool,
    /// Producers.
    pub producers: usize,
    /// Requests of each producer.
    pub posts: u64,
    /// For how long there is trouble, in seconds of virtual time.
    pub seconds: u64,
    /// Above so many destinations an event is fanned out later.
    pub fan_out_above: usize,
    /// Requests out at once per dispatcher.
    pub max_in_flight: usize,
    /// Messages in hand per dispatcher.
    pub max_queued: usize,
    /// No fault of ours at all: only destinations misbehave.
    pub calm: bool,
    /// A call fails before it did anything.
    pub fails_before: f64,
    /// A call did what it was asked for, and its answer is lost.
    pub fails_after: f64,
    /// A call takes long.
    pub slow: f64,
    /// A process dies at one of its calls.
    pub dies: bool,
    /// Processes are killed, restarted, and cut off.
    pub kills: bool,
    /// Clocks are off and jump.
    pub clocks: bool,
    /// The store is away for a while.
    pub store_outages: bool,
    /// The bus is.
    pub bus_outages: bool,
    /// The limits are.
    pub limits_outages: bool,
    /// The bus loses all that it holds.
    pub bus_losses: bool,
    /// A message is there twice.
    pub duplicates: f64,
    /// A message becomes visible late.
    pub late: f64,
    /// A message cannot be decoded.
    pub corrupt: f64,
    /// Partitions move without cause.
    pub rebalances: bool,
    /// How often people change something, per second. 0: never.
    pub people: f64,
    /// The answer to a client is lost.
    pub lost_answers: f64,
    /// How badly destinations behave: the part of them that is not healthy.
    pub bad: f64,
}

impl Knobs {
    /// Those of a seed.
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::of(seed, "knobs");
        let calm = rng.chance(0.2);
        let some = |rng: &mut Rng, parts: &[f64]| if calm { 0.0 } else { rng.pick(parts).copied().unwrap_or(0.0) };
        let on = |rng: &mut Rng, part: f64| rng.chance(part) && !calm;
        Self {
            apis: 1 + rng.index(2),
            dispatchers: 1 + rng.index(3),
            retries: 1 + rng.index(2),
            destinations: 2 + rng.index(4),
            partitions: 1 + rng.index(5) as i32,
            scattered: rng.chance(0.6),
            producers: 1 + rng.index(3),
            posts: rng.between(4, 24),
            seconds: rng.between(5, 25),
            fan_out_above: *rng.pick(&[1, 2, 1000, 1000]).unwrap_or(&1000),
            // What is prompt where nothing is wrong has room.
            max_in_flight: rng.pick(&[2, 8, 64]).copied().filter(|_| !calm).unwrap_or(64),
            max_queued: rng.pick(&[4, 32, 512]).copied().filter(|_| !calm).unwrap_or(512),
            calm,
            fails_before: some(&mut rng, &[0.0, 0.0, 0.01, 0.05]),
            fails_after: some(&mut rng, &[0.0, 0.0, 0.01, 0.05]),
            slow: some(&mut rng, &[0.0, 0.0, 0.005, 0.02]),
            dies: on(&mut rng, 0.5),
            kills: on(&mut rng, 0.5),
            clocks: on(&mut rng, 0.5),
            store_outages: on(&mut rng, 0.35),
            bus_outages: on(&mut rng, 0.35),
            limits_outages: on(&mut rng, 0.35),
            bus_losses: on(&mut rng, 0.3),
            duplicates: some(&mut rng, &[0.0, 0.0, 0.05, 0.3]),
            late: some(&mut rng, &[0.0, 0.0, 0.05, 0.3]),
            corrupt: some(&mut rng, &[0.0, 0.0, 0.0, 0.05]),
            rebalances: on(&mut rng, 0.4),
            people: *rng.pick(&[0.0, 0.3, 1.0, 3.0]).unwrap_or(&0.0),
            lost_answers: some(&mut rng, &[0.0, 0.02, 0.1]),
            bad: *rng.pick(&[0.0, 0.4, 0.7, 0.95]).unwrap_or(&0.3),
        }
    }
}
