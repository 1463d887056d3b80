//! Processes: each is one of the three services, run by its own library; when a life ends, another begins in its place.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use signalpost_api::Api;
use signalpost_core::{Clock, Secret};
use signalpost_limits::Limits;
use signalpost_sender::Sender;
use signalpost_store::{Store, layers::LayeredStore, schedule::Retention};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    bus::{GatedBus, SimBus},
    chaos::{self, Lives},
    client::{Apis, KEY},
    gates::{GatedLimits, GatedStore, LayeredLimits},
    life::Life,
    receivers::{Receivers, SimExchanger},
    seed::Rng,
    world::World,
};

/// What outlives every process.
#[derive(Clone)]
pub struct Outside {
    /// Time, faults, checks.
    pub world: Arc<World>,
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub bus: Arc<SimBus>,
    /// The limits.
    pub limits: Arc<dyn Limits>,
    /// The destinations.
    pub receivers: Arc<Receivers>,
    /// Judges URLs; sends nothing.
    pub sender: Arc<Sender>,
    /// The API processes.
    pub apis: Arc<Apis>,
    /// All processes.
    pub lives: Arc<Lives>,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `signalpost-api`.
    Api,
    /// `signalpost-dispatcher`.
    Dispatcher,
    /// `signalpost-retry`.
    Retry,
}

/// Starts all processes, in tasks of this set.
pub fn start(outside: &Outside, set: &mut JoinSet<()>) {
    let knobs = &outside.world.knobs;
    let roles = [(Role::Api, knobs.apis), (Role::Dispatcher, knobs.dispatchers), (Role::Retry, knobs.retries)];
    let mut place = 0;
    for (role, count) in roles {
        for number in 0..count {
            set.spawn(lives(outside.clone(), role, number, place));
            place += 1;
        }
    }
}

/// One life after another.
async fn lives(outside: Outside, role: Role, number: usize, place: usize) {
    let world = &outside.world;
    let role_name = format!("{role:?}").to_lowercase();
    let mut rng = Rng::of(world.seed, &format!("{role_name} {number} lives"));
    for generation in 1.. {
        let name = format!("{role_name} {number}.{generation}");
        let off = if world.knobs.clocks { chaos::off(&name, &mut rng) } else { 0 };
        let life = Life::new(world, name, off);
        {
            let mut all = outside.lives.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = all.get_mut(place) { *slot = Arc::clone(&life) } else { all.push(Arc::clone(&life)) }
        }
        world.tell(&life.name, format_args!("begins"));
        let mut body = tokio::spawn(service(outside.clone(), role, number, Arc::clone(&life)));
        tokio::select! {
            biased;
            () = life.dead.cancelled() => body.abort(),
            ended = &mut body => match ended {
                Ok(Ok(())) if life.shutdown.is_draining() => world.tell(&life.name, format_args!("has drained")),
                Ok(why) => chaos::ended_by_itself(world, &life.name, &format!("{why:?}")),
                Err(panic) => chaos::ended_by_itself(world, &life.name, &panic.to_string()),
            },
        }
        if life.dead.is_cancelled() {
            world.ask(|checker| checker.life_ended(&life.name));
        }
        if role == Role::Api {
            outside.apis.lock().unwrap_or_else(PoisonError::into_inner)[number] = None;
        }
        if world.broken.is_cancelled() {
            return;
        }
        let pause = rng.millis(0, 2500);
        sleep(pause).await;
    }
}

/// One service, until it is asked to end.
async fn service(outside: Outside, role: Role, number: usize, life: Arc<Life>) -> Result<(), String> {
    let store: Arc<dyn Store> = Arc::new(LayeredStore(GatedStore::new(&life, Arc::clone(&outside.store))));
    let bus = Arc::new(GatedBus::new(&life, &outside.bus));
    let limits = Arc::new(LayeredLimits(GatedLimits::new(&life, Arc::clone(&outside.limits))));
    let (clock, entropy) = (Arc::clone(&life.clock) as Arc<dyn Clock>, Arc::clone(&life.entropy));
    let shutdown = life.shutdown.clone();
    let knobs = &outside.world.knobs;
    match role {
        Role::Api => {
            let ports =
                signalpost_api::Ports { store, bus, limits, sender: Arc::clone(&outside.sender), clock, entropy };
            let settings = signalpost_api::Settings {
                operator_keys: vec![Secret::new(KEY)],
                fan_out_above: knobs.fan_out_above,
                ..signalpost_api::Settings::default()
            };
            let api = Api::start(ports, settings, shutdown.clone());
            let running = Some((Arc::clone(&life), api.router()));
            outside.apis.lock().unwrap_or_else(PoisonError::into_inner)[number] = running;
            shutdown.draining().await;
            outside.apis.lock().unwrap_or_else(PoisonError::into_inner)[number] = None;
            // Requests that are under way still end.
            sleep(Duration::from_secs(1)).await;
            let _late = timeout(Duration::from_secs(20), api.drained()).await;
            Ok(())
        }
        Role::Dispatcher => {
            let exchanger = Arc::new(SimExchanger::new(&life, &outside.receivers));
            let ports = signalpost_dispatcher::Ports { store, bus, limits, exchanger, clock, entropy };
            let settings = signalpost_dispatcher::Settings {
                max_in_flight: knobs.max_in_flight,
                max_queued: knobs.max_queued,
                max_gap: 64,
                receive_batch: 32,
                max_wait: Duration::from_secs(1),
                detach_grace: Duration::from_secs(2),
                drain: Duration::from_secs(5),
                ..signalpost_dispatcher::Settings::default()
            };
            signalpost_dispatcher::run(ports, settings, shutdown).await.map_err(|error| error.to_string())
        }
        Role::Retry => {
            let ports = signalpost_retry::Ports { store, bus, clock, entropy };
            signalpost_retry::run(ports, retry_settings(), shutdown).await.map_err(|error| error.to_string())
        }
    }
}

/// Those of a cluster, with shorter leases: a run lasts for a minute and not for an hour.
fn retry_settings() -> signalpost_retry::Settings {
    let usual = signalpost_retry::Settings::default();
    signalpost_retry::Settings {
        feed_poll: Duration::from_millis(400),
        feed_most: 50,
        feed_per_destination: 10,
        feed_lease: Duration::from_secs(10),
        reconcile_chunk: 10,
        fan_out_chunk: 2,
        fan_out_every: Duration::from_millis(500),
        replay_every: Duration::from_millis(500),
        replay_chunk: 3,
        sweep_chunk: 2,
        sample_every: Duration::from_secs(30),
        retention: Retention { chunk: 10, ..usual.retention },
        ..usual
    }
}
