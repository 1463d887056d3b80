//! One life of one process. Everything that it does outside itself goes through [`Life::call`], which delays it, lets it
//! fail, and ends the life: from then on each of its calls hangs for ever, as if the process had stopped at that await.

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signalpost_bus::BusError;
use signalpost_core::Entropy;
use signalpost_limits::LimitsUnavailable;
use signalpost_runtime::Shutdown;
use signalpost_store::StoreError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    seed::{Rng, SeededEntropy},
    time::SimClock,
    world::World,
};

/// What a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The store.
    Store,
    /// The bus.
    Bus,
    /// The limits: they answer within 50 ms, or not.
    Limits,
}

/// The longest that the limits may take.
const LIMITS_PATIENCE: Duration = Duration::from_millis(50);

/// An error that says that something is away.
pub trait Away {
    /// It is away.
    fn away(text: &str) -> Self;
}

impl Away for StoreError {
    fn away(text: &str) -> Self {
        Self::Unavailable(text.to_owned())
    }
}

impl Away for BusError {
    fn away(text: &str) -> Self {
        Self::Unavailable(text.to_owned())
    }
}

impl Away for LimitsUnavailable {
    fn away(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// One life.
#[derive(Debug)]
pub struct Life {
    /// In the trace: role, place, number of the life.
    pub name: String,
    /// Where it lives.
    pub world: Arc<World>,
    /// Its time.
    pub clock: Arc<SimClock>,
    /// Its randomness.
    pub entropy: Arc<dyn Entropy>,
    /// How it is asked to end.
    pub shutdown: Shutdown,
    /// Its end without being asked.
    pub dead: CancellationToken,
    /// Until when it is cut off from everything.
    pub cut_until: Mutex<Option<Instant>>,
    rng: Mutex<Rng>,
    /// It dies after about so many calls; none: it does not.
    lasts: Option<u64>,
}

/// What is to happen to one call.
#[derive(Debug, Default)]
struct Fate {
    number: u64,
    before: Duration,
    after: Duration,
    refused: Option<&'static str>,
    unanswered: bool,
    dies_before: bool,
    dies_after: bool,
}

impl Life {
    /// A life that begins now. `off`: its clock, in microseconds.
    pub fn new(world: &Arc<World>, name: String, off: i64) -> Arc<Self> {
        let mut rng = Rng::of(world.seed, &name);
        let mortal = world.knobs.dies && rng.chance(0.6) && !world.is_healed();
        let lasts = mortal.then(|| rng.between(5, 600));
        let entropy = Arc::new(SeededEntropy::new(Rng::of(world.seed, &format!("{name} entropy"))));
        Arc::new(Self {
            world: Arc::clone(world),
            clock: Arc::new(SimClock::new(world.start, off)),
            entropy,
            shutdown: Shutdown::new(),
            dead: CancellationToken::new(),
            cut_until: Mutex::default(),
            rng: Mutex::new(rng),
            lasts,
            name,
        })
    }

    /// A draw of its own.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hangs for ever where it is dead.
    pub async fn alive(&self) {
        if self.dead.is_cancelled() {
            pending::<()>().await;
        }
    }

    /// Ends it now.
    pub fn die(&self, how: &str) {
        if !self.dead.is_cancelled() {
            self.world.tell(&self.name, format_args!("DIES {how}"));
            self.world.trouble();
            self.dead.cancel();
        }
    }

    /// Cuts it off for so long.
    pub fn cut(&self, how_long: Duration) {
        *self.cut_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + how_long);
    }

    /// Why a call to that port cannot be made now.
    pub fn refusal(&self, port: Port) -> Option<&'static str> {
        let now = Instant::now();
        let faults = self.world.faults();
        if faults.healed {
            return None;
        }
        let until = match port {
            Port::Store => faults.store_until,
            Port::Bus => faults.bus_until,
            Port::Limits => faults.limits_until,
        };
        let cut = *self.cut_until.lock().unwrap_or_else(PoisonError::into_inner);
        (until.is_some_and(|until| until > now) || cut.is_some_and(|until| until > now)).then_some("away (simulated)")
    }

    /// Makes a call to a port. `inner` has its effect when it is first polled, whole.
    ///
    /// # Errors
    /// Those of `inner`, and those of the faults that are on.
    pub async fn call<T, E: Away>(
        &self,
        port: Port,
        name: &'static str,
        inner: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.alive().await;
        let fate = self.fate(port);
        wait(fate.before).await;
        self.goes_out(port, name, &fate).await?;
        let result = inner.await;
        self.came_of(port, name, &fate, result).await
    }

    /// As [`Self::call`], but the call is on its way once it is made: whoever made it may give up, or die, and it has its
    /// effect all the same, later.
    ///
    /// # Errors
    /// As above.
    pub async fn send<T: Send + 'static, E: Away + Send + 'static>(
        &self,
        port: Port,
        name: &'static str,
        inner: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        self.alive().await;
        let fate = self.fate(port);
        self.goes_out(port, name, &fate).await?;
        let before = fate.before;
        let under_way = tokio::spawn(async move {
            wait(before).await;
            inner.await
        });
        let result = under_way.await.unwrap_or_else(|_| Err(E::away("it broke on its way (simulated)")));
        self.came_of(port, name, &fate, result).await
    }

    /// Whether a call is made at all.
    async fn goes_out<E: Away>(&self, port: Port, name: &'static str, fate: &Fate) -> Result<(), E> {
        self.alive().await;
        if fate.dies_before {
            self.die(&format!("before {name}"));
            pending::<()>().await;
        }
        if let Some(why) = fate.refused.or_else(|| self.refusal(port)) {
            self.world.tell(&self.name, format_args!("{name} refused"));
            return Err(E::away(why));
        }
        Ok(())
    }

    /// What its caller hears of a call.
    async fn came_of<T, E: Away>(
        &self,
        port: Port,
        name: &'static str,
        fate: &Fate,
        result: Result<T, E>,
    ) -> Result<T, E> {
        self.world
            .count(&self.name, format_args!("{name} {} {}", fate.number, if result.is_ok() { "ok" } else { "error" }));
        if port == Port::Store {
            self.world.look(&self.name);
        }
        if fate.dies_after {
            self.die(&format!("after {name}"));
        }
        wait(fate.after).await;
        self.alive().await;
        if fate.unanswered || self.refusal(port).is_some() {
            self.world.tell(&self.name, format_args!("{name} unanswered"));
            return Err(E::away("no answer (simulated)"));
        }
        result
    }

    /// Makes up what happens to the next call.
    fn fate(&self, port: Port) -> Fate {
        let knobs = &self.world.knobs;
        let healed = self.world.is_healed();
        let lasts = self.lasts.filter(|_| !healed);
        self.draw(|rng| {
            let mut fate = Fate { number: rng.next(), ..Fate::default() };
            let half = rng.chance(0.5);
            (fate.before, fate.after) = (short(rng), short(rng));
            if healed {
                return fate;
            }
            if rng.chance(knobs.slow) {
                let long = if rng.chance(0.2) { rng.millis(1000, 18_000) } else { rng.millis(20, 1500) };
                if half { fate.before = long } else { fate.after = long }
            }
            fate.refused = rng.chance(knobs.fails_before).then_some("no connection (simulated)");
            fate.unanswered = rng.chance(knobs.fails_after);
            if port == Port::Limits && fate.before + fate.after > LIMITS_PATIENCE {
                // Whoever asks gives up, whether it came to anything or not.
                fate.before = fate.before.min(LIMITS_PATIENCE);
                fate.after = LIMITS_PATIENCE - fate.before;
                fate.unanswered = true;
            }
            if lasts.is_some_and(|calls| rng.chance(1.0 / calls_to_chance(calls))) {
                (fate.dies_before, fate.dies_after) = (half, !half);
            }
            fate
        })
    }
}

/// A life that is to last about so many calls dies at each with one in that.
#[allow(clippy::cast_precision_loss, reason = "small")]
const fn calls_to_chance(calls: u64) -> f64 {
    calls as f64
}

/// What a call takes where nothing is wrong.
fn short(rng: &mut Rng) -> Duration {
    if rng.chance(0.4) { Duration::ZERO } else { rng.millis(1, 4) }
}

async fn wait(how_long: Duration) {
    if !how_long.is_zero() {
        sleep(how_long).await;
    }
}
