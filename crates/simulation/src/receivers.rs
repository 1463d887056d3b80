//! The destinations: each has a manner, which may change, and everything that reaches one is checked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use signalpost_core::{DestinationId, classify::Answer};
use signalpost_dispatcher::Exchanger;
use signalpost_sender::{Exchange, Outgoing};
use tokio::time::{Instant, sleep};

use crate::{life::Life, seed::Rng, world::World};

/// How a destination behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// 200, at once.
    Healthy,
    /// 200, after longer than a request stays attached.
    Slow,
    /// 200 or 500.
    Flaky(f64),
    /// 500.
    Down,
    /// No answer until the time-out.
    Hangs,
    /// 429 or 503 with `Retry-After`.
    Busy,
    /// It took the event, and the answer is lost.
    Mute(f64),
    /// 400 now and then.
    Picky(f64),
    /// 410.
    Gone,
}

impl Manner {
    /// Any but `Healthy`; `Gone` seldom.
    pub fn bad(rng: &mut Rng) -> Self {
        if rng.chance(0.04) {
            return Self::Gone;
        }
        let all = [
            Self::Slow,
            Self::Flaky(0.3),
            Self::Flaky(0.8),
            Self::Down,
            Self::Hangs,
            Self::Busy,
            Self::Mute(0.5),
            Self::Picky(0.3),
        ];
        rng.pick(&all).copied().unwrap_or(Self::Down)
    }
}

/// All destinations.
#[derive(Debug)]
pub struct Receivers {
    manners: Mutex<BTreeMap<DestinationId, Manner>>,
}

impl Receivers {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { manners: Mutex::default() })
    }

    /// From now on it behaves so.
    pub fn set(&self, destination: DestinationId, manner: Manner) {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner).insert(destination, manner);
    }

    /// All are healthy from now on, but those that are gone.
    pub fn heal(&self) {
        for manner in self.manners.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            if *manner != Manner::Gone {
                *manner = Manner::Healthy;
            }
        }
    }

    fn manner(&self, destination: DestinationId) -> Manner {
        let manners = self.manners.lock().unwrap_or_else(PoisonError::into_inner);
        manners.get(&destination).copied().unwrap_or(Manner::Healthy)
    }
}

/// What one life sends with.
#[derive(Debug)]
pub struct SimExchanger {
    life: Arc<Life>,
    receivers: Arc<Receivers>,
}

impl SimExchanger {
    /// For one life.
    pub fn new(life: &Arc<Life>, receivers: &Arc<Receivers>) -> Self {
        Self { life: Arc::clone(life), receivers: Arc::clone(receivers) }
    }
}

/// A request that is out; dropped without an answer, nobody can account for it.
struct Out<'a> {
    world: &'a World,
    request: usize,
    answered: bool,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.world.ask(|checker| checker.request_ended(self.request, self.answered));
    }
}

#[async_trait]
impl Exchanger for SimExchanger {
    async fn exchange(&self, outgoing: &Outgoing<'_>) -> Exchange {
        let (life, world) = (&self.life, &*self.life.world);
        // Connecting takes a moment, in which the process may die.
        let (connecting, taking) = life.draw(|rng| (rng.millis(0, 3), rng.millis(0, 30)));
        if !connecting.is_zero() {
            sleep(connecting).await;
        }
        life.alive().await;
        let destination = outgoing.destination.id;
        let manner = self.receivers.manner(destination);
        // One that is out for long is one that the store knows of.
        let mortal = if matches!(manner, Manner::Slow | Manner::Hangs) { 0.08 } else { 0.01 };
        let die = life.draw(|rng| rng.chance(mortal)) && world.knobs.dies && !world.is_healed();
        let (delivery, number) = (outgoing.delivery_id, outgoing.attempt);
        let name = world.name_of(destination);
        world.tell(&life.name, format_args!("SENDS {delivery}/{number} to {name}, which is {manner:?}"));
        let started = world.check(|checker| checker.request_started(&life.name, delivery, number, Instant::now()));
        let mut out = started.map(|request| Out { world, request, answered: false });
        let timeout = outgoing.destination.spec.timeout();
        let begun = Instant::now();
        let (takes, answer, code) = life.draw(|rng| answer(manner, taking, timeout, rng));
        let lasts = takes.min(timeout);
        if die {
            sleep(lasts.mul_f64(0.8)).await;
            life.die("with a request out");
        }
        sleep(lasts.saturating_sub(begun.elapsed())).await;
        life.alive().await;
        let (answer, code) = if takes > timeout { (Answer::Unreachable, None) } else { (answer, code) };
        world.tell(&life.name, format_args!("answered {delivery}/{number}: {answer:?}"));
        if let Some(out) = &mut out {
            out.answered = true;
        }
        let error = code.is_none().then(|| "no answer (simulated)".to_owned());
        Exchange { answer, status_code: code, response_excerpt: Bytes::new(), error, duration: begun.elapsed() }
    }
}

/// How long it takes, what it is, and the status of it.
fn answer(manner: Manner, taking: Duration, timeout: Duration, rng: &mut Rng) -> (Duration, Answer, Option<u16>) {
    let status = |code| (taking, Answer::Status { code, retry_after: None }, Some(code));
    let failing = |rng: &mut Rng, part, code| if rng.chance(part) { status(code) } else { status(200) };
    match manner {
        Manner::Healthy => status(200),
        Manner::Slow => {
            let (_, answer, code) = status(200);
            (rng.millis(800, 2600), answer, code)
        }
        Manner::Flaky(part) => failing(rng, part, 500),
        Manner::Down => status(500),
        Manner::Hangs => (timeout + Duration::from_secs(1), Answer::Unreachable, None),
        Manner::Busy => {
            let code = if rng.chance(0.5) { 429 } else { 503 };
            (taking, Answer::Status { code, retry_after: Some(rng.millis(500, 3000)) }, Some(code))
        }
        Manner::Mute(part) if rng.chance(part) => (taking, Answer::Unreachable, None),
        Manner::Mute(_) => status(200),
        Manner::Picky(part) => failing(rng, part, 400),
        Manner::Gone => status(410),
    }
}
