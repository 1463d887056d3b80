//! One run: a seed, from the first process to rest.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use signalpost_core::{Clock, Entropy};
use signalpost_limits::{Limits, local::LocalLimits};
use signalpost_sender::{EgressPolicy, Sender, SenderSettings};
use signalpost_store::{IngestStore as _, Store};
use signalpost_store_sqlite::{SqliteStore, simulation::Rule};
use signalpost_vault::KeyRing;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    breaks::Lie,
    bus::SimBus,
    chaos,
    check::{Invariant, Violation},
    client::Client,
    gates::{LayeredLimits, TappedLimits},
    knobs::Knobs,
    lives::{self, Outside},
    panics,
    people::People,
    producers,
    receivers::Receivers,
    seed::{Rng, SeededEntropy},
    time::SimClock,
    world::World,
};

/// By when all must be at rest once every fault is over: leases, time-outs and retries are far shorter.
const REST: Duration = Duration::from_secs(240);

/// How often the whole store is looked at.
const AUDIT_EVERY: Duration = Duration::from_secs(2);

/// What a run may be told beside its seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A promise that is broken on purpose.
    pub lie: Option<Lie>,
    /// Every line of the trace goes to stderr.
    pub loud: bool,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What is broken.
    pub violation: Option<Violation>,
    /// Of its whole trace: the same seed gives the same.
    pub hash: u64,
    /// Calls, requests, changes.
    pub steps: u64,
    /// Deliveries that were made.
    pub deliveries: usize,
    /// Requests that destinations saw.
    pub requests: usize,
    /// How much time passed in it.
    pub lasted: Duration,
    /// The last lines of its trace, oldest first.
    pub tail: Vec<String>,
}

/// Runs a seed.
///
/// # Errors
/// It could not begin at all: no runtime, no SQLite, no TLS.
pub fn run(seed: u64, options: Options) -> anyhow::Result<Outcome> {
    panics::watch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let outcome = runtime.block_on(whole(seed, options));
    drop(runtime);
    panics::leave();
    outcome
}

async fn whole(seed: u64, options: Options) -> anyhow::Result<Outcome> {
    let clock = Arc::new(SimClock::new(Instant::now(), 0));
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(Rng::of(seed, "store")));
    let (store, inspector) =
        SqliteStore::open_in_memory_inline(Arc::clone(&clock) as Arc<dyn Clock>, Arc::clone(&entropy))?;
    let knobs = Knobs::of(seed);
    let world = Arc::new(World::new(seed, knobs.clone(), Arc::clone(&clock), inspector, store.changes(), options.loud));
    world.tell("run", format_args!("seed {seed}: {knobs:?}"));
    let store: Arc<dyn Store> = Arc::new(store);
    let limits: Arc<dyn Limits> = Arc::new(LocalLimits::new(Arc::clone(&clock) as Arc<dyn Clock>));
    let limits: Arc<dyn Limits> = Arc::new(LayeredLimits(TappedLimits::new(&world, limits)));
    let egress = EgressPolicy {
        allow: vec![ipnet::IpNet::V4(ipnet::Ipv4Net::new([127, 0, 0, 0].into(), 8)?)],
        require_https: false,
        ..EgressPolicy::public_only()
    };
    let vault = Arc::new(KeyRing::parse(KeyRing::generate("simulated", &*entropy).reveal())?);
    let sender = Sender::new(SenderSettings::new(egress, clock as Arc<dyn Clock>, entropy, vault))?;
    let outside = Outside {
        store: options.lie.map_or_else(|| Arc::clone(&store), |lie| lie.store(&world, &store)),
        limits: options.lie.map_or_else(|| Arc::clone(&limits), |lie| lie.limits(&limits)),
        bus: SimBus::new(&world),
        receivers: Receivers::new(),
        sender: Arc::new(sender),
        apis: Arc::new(Mutex::new(vec![None; knobs.apis])),
        lives: Arc::default(),
        world: Arc::clone(&world),
    };
    let mut set = JoinSet::new();
    lives::start(&outside, &mut set);
    tokio::select! {
        biased;
        () = world.broken.cancelled() => {}
        () = story(&outside) => {}
    }
    set.shutdown().await;
    let (deliveries, requests) = world.ask(|checker| (checker.deliveries.len(), checker.requests.len()));
    let violation = world.violation();
    let trace = world.trace();
    Ok(Outcome {
        seed,
        violation,
        hash: trace.hash(),
        steps: trace.steps(),
        deliveries,
        requests,
        lasted: world.elapsed(),
        tail: trace.tail(60),
    })
}

/// What happens, beside what processes do by themselves.
async fn story(outside: &Outside) {
    let world = &outside.world;
    let client = |name: &str| Client::new(world, &outside.apis, name);
    let mut people = People::new(world, client("people"), &outside.receivers);
    people.begin().await;
    let trouble = async {
        let mut busy = JoinSet::new();
        for number in 0..world.knobs.producers {
            busy.spawn(producers::run(Arc::clone(world), client(&format!("producer {number}"))));
        }
        let (bus, lives, receivers) = (outside.bus.clone(), outside.lives.clone(), outside.receivers.clone());
        busy.spawn(chaos::run(Arc::clone(world), bus, lives, receivers));
        let people = people.run().await;
        while busy.join_next().await.is_some() {}
        people
    };
    let mut people = watched(world, trouble).await;
    world.tell("run", format_args!("ALL FAULTS ARE OVER"));
    world.faults().healed = true;
    outside.receivers.heal();
    watched(world, async {
        people.make_up().await;
        rest(world).await;
    })
    .await;
}

/// Lets something happen, and looks at everything now and then.
async fn watched<T>(world: &World, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = sleep(AUDIT_EVERY) => {
                audit(world);
                world.check(|checker| checker.prompt(Instant::now()));
            }
        }
    }
}

fn audit(world: &World) {
    match world.inspector().audit() {
        Ok(broken) => {
            if let Some((rule, first)) = broken.first() {
                let invariant = match rule {
                    Rule::Tables => Invariant::Sound,
                    Rule::Attempts => Invariant::Accounted,
                    Rule::Order => Invariant::Order,
                    Rule::Forgotten => Invariant::NeverForgotten,
                };
                world.violate(invariant, format!("{} broken rules; the first: {first}", broken.len()));
            }
        }
        Err(error) => world.violate(Invariant::Sound, format!("the store cannot be read: {error}")),
    }
}

/// Waits until nothing is left to do, and looks at it all.
async fn rest(world: &World) {
    let until = Instant::now() + REST;
    let mut quiet = 0;
    while quiet < 3 {
        sleep(Duration::from_millis(700)).await;
        match world.inspector().rest() {
            // Outcomes may still be under way from a dispatcher to a delivery that another ended.
            Ok(rest) if rest.is_over() => quiet += 1,
            Ok(rest) => {
                quiet = 0;
                if Instant::now() > until {
                    let text = format!("{REST:?} after the last fault this is left: {rest:?}");
                    return world.violate(Invariant::NeverForgotten, text);
                }
            }
            Err(error) => return world.violate(Invariant::Sound, format!("the store cannot be read: {error}")),
        }
    }
    audit(world);
    let knobs = &world.knobs;
    let keeps = !(knobs.store_outages
        || knobs.kills
        || knobs.fails_before > 0.0
        || knobs.fails_after > 0.0
        || knobs.slow > 0.0);
    // A life that was asked to end may leave outcomes behind where the store is away for too long.
    world.check(|checker| checker.at_rest(|_| keeps));
}
