//! What goes wrong on purpose, beside single calls: outages, kills, restarts, clocks, losses.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    bus::SimBus,
    check::Invariant,
    life::Life,
    receivers::{Manner, Receivers},
    seed::Rng,
    world::World,
};

/// The processes that run.
pub type Lives = Mutex<Vec<Arc<Life>>>;

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Store,
    Bus,
    Limits,
    Loss,
    Rebalance,
    Kill,
    Restart,
    Cut,
    Clock,
    Manner,
}

/// Makes trouble until its time is over.
pub async fn run(world: Arc<World>, bus: Arc<SimBus>, lives: Arc<Lives>, receivers: Arc<Receivers>) {
    let mut rng = Rng::of(world.seed, "chaos");
    let kinds = kinds(&world);
    let until = world.start + Duration::from_secs(world.knobs.seconds);
    while Instant::now() < until && !world.broken.is_cancelled() {
        let pause = rng.millis(100, 3000);
        sleep(pause).await;
        let Some(kind) = rng.pick(&kinds).copied() else { return };
        let life = {
            let lives = lives.lock().unwrap_or_else(PoisonError::into_inner);
            rng.pick(&lives).cloned()
        };
        if kind != Trouble::Manner {
            world.trouble();
        }
        make(kind, &world, &mut rng, &bus, life, &receivers);
    }
}

fn kinds(world: &World) -> Vec<Trouble> {
    let knobs = &world.knobs;
    let mut kinds = Vec::new();
    let mut may = |is_on: bool, kind| kinds.extend(is_on.then_some(kind));
    may(knobs.store_outages, Trouble::Store);
    may(knobs.bus_outages, Trouble::Bus);
    may(knobs.limits_outages, Trouble::Limits);
    may(knobs.bus_losses, Trouble::Loss);
    may(knobs.rebalances, Trouble::Rebalance);
    may(knobs.kills, Trouble::Kill);
    may(knobs.kills, Trouble::Restart);
    may(knobs.kills, Trouble::Cut);
    may(knobs.clocks, Trouble::Clock);
    may(knobs.bad > 0.0, Trouble::Manner);
    kinds
}

fn make(kind: Trouble, world: &World, rng: &mut Rng, bus: &SimBus, life: Option<Arc<Life>>, receivers: &Receivers) {
    let until = Some(Instant::now() + rng.millis(100, 6000));
    let name = life.as_ref().map(|life| life.name.clone()).unwrap_or_default();
    world.tell("chaos", format_args!("{kind:?} {name}"));
    match (kind, life) {
        (Trouble::Store, _) => world.faults().store_until = until,
        (Trouble::Bus, _) => world.faults().bus_until = until,
        (Trouble::Limits, _) => world.faults().limits_until = until,
        (Trouble::Loss, _) => bus.lose_everything(),
        (Trouble::Rebalance, _) => bus.rebalance(),
        (Trouble::Kill, Some(life)) => life.die("killed"),
        (Trouble::Restart, Some(life)) => life.shutdown.drain(),
        (Trouble::Cut, Some(life)) => life.cut(rng.millis(100, 8000)),
        (Trouble::Clock, Some(life)) => life.clock.jump_to(off(&life.name, rng)),
        (Trouble::Manner, _) => {
            let ids: Vec<_> = world.ask(|checker| {
                let may_change =
                    checker.destinations.iter().filter(|(_, expected)| !expected.reference && expected.routed);
                may_change.map(|(id, _)| *id).collect()
            });
            let Some(id) = rng.pick(&ids).copied() else { return };
            let manner = if rng.chance(world.knobs.bad) { Manner::bad(rng) } else { Manner::Healthy };
            if manner == Manner::Gone {
                // It will be disabled: events need not go there any more.
                world.ask(|checker| checker.destinations.get_mut(&id).map(|expected| expected.routed = false));
            }
            let name = world.name_of(id);
            world.tell("chaos", format_args!("{name} is {manner:?} now"));
            receivers.set(id, manner);
        }
        (Trouble::Kill | Trouble::Restart | Trouble::Cut | Trouble::Clock, None) => {}
    }
}

/// How far off a process's clock may be, in microseconds: a minute; an API that is further off than 2 s is not ready.
pub fn off(name: &str, rng: &mut Rng) -> i64 {
    let most = if name.starts_with("api") { 2_000_000 } else { 60_000_000 };
    i64::try_from(rng.between(0, 2 * most)).unwrap_or(0) - i64::try_from(most).unwrap_or(0)
}

/// A service ended, and nobody asked it to.
pub fn ended_by_itself(world: &World, name: &str, why: &str) {
    world.violate(Invariant::Sound, format!("{name} ended by itself: {why}"));
}
