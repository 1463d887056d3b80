//! The bus of the simulation: a log per partition, a group of consumers, and all that a real one does to its users.
//!
//! Partitions move between consumers when one joins, leaves or dies, and now and then for no reason. What was read and not
//! committed is read again. A message may be there twice, be visible late, be undecodable, or be lost with all others.
//! Nothing runs in the background: whoever calls looks at the clock first.

mod consumer;
mod group;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use signalpost_bus::{Bus, BusError, Consumer, Message};
use signalpost_core::{Clock as _, Timestamp};
use tokio::{sync::Notify, time::Instant};

use self::{
    consumer::SimConsumer,
    group::{Group, Record},
};
use crate::{
    life::{Life, Port},
    seed::Rng,
    world::World,
};

/// The bus itself: what outlives every process.
#[derive(Debug)]
pub struct SimBus {
    world: Arc<World>,
    group: Mutex<Group>,
    /// Told whenever something may have become ready for somebody.
    moved: Notify,
}

impl SimBus {
    /// An empty one.
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let rng = Rng::of(world.seed, "bus");
        let group = Mutex::new(Group::new(world.knobs.partitions, world.knobs.scattered, rng));
        Arc::new(Self { world: Arc::clone(world), group, moved: Notify::new() })
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        group.tick(Instant::now());
        group
    }

    /// All that it holds is gone.
    pub fn lose_everything(&self) {
        let lost = self.group().lose_everything();
        self.world.tell("bus", format_args!("LOSES {lost} messages"));
    }

    /// Gives the partitions to other members, for no reason.
    pub fn rebalance(&self) {
        self.world.tell("bus", format_args!("REBALANCES"));
        self.group().rotate(Instant::now());
        self.moved.notify_waiters();
    }

    fn append(&self, batch: &[Arc<Message>]) {
        let knobs = &self.world.knobs;
        let healed = self.world.is_healed();
        let handed_over = self.world.clock.now();
        let mut group = self.group();
        for message in batch {
            let twice = group.rng.chance(knobs.duplicates) && !healed;
            for _ in 0..=usize::from(twice) {
                let late = if group.rng.chance(knobs.late) && !healed {
                    group.rng.millis(10, 4000)
                } else {
                    group.rng.millis(0, 3)
                };
                let corrupt = group.rng.chance(knobs.corrupt) && !healed;
                let visible = Instant::now() + late;
                group.append(Record { offset: 0, message: Arc::clone(message), handed_over, visible, corrupt });
            }
        }
        drop(group);
        self.moved.notify_waiters();
    }
}

/// The bus as one life sees it.
#[derive(Debug)]
pub struct GatedBus {
    life: Arc<Life>,
    bus: Arc<SimBus>,
}

impl GatedBus {
    /// For one life.
    pub fn new(life: &Arc<Life>, bus: &Arc<SimBus>) -> Self {
        Self { life: Arc::clone(life), bus: Arc::clone(bus) }
    }
}

#[async_trait]
impl Bus for GatedBus {
    async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        let fails = self.bus.world.knobs.fails_after;
        let publish = async {
            let half = self.life.draw(|rng| rng.chance(fails)) && !self.bus.world.is_healed();
            let taken = if half { batch.len() / 2 } else { batch.len() };
            self.bus.append(&batch[..taken]);
            self.bus.world.tell(&self.life.name, format_args!("publishes {taken} of {}", batch.len()));
            if half { Err(BusError::Unavailable("half of it (simulated)".to_owned())) } else { Ok(()) }
        };
        // Bounded: less than 5 s. What is late may still arrive: that is an effect without an answer.
        match tokio::time::timeout(
            std::time::Duration::from_millis(4900),
            self.life.call(Port::Bus, "publish", publish),
        )
        .await
        {
            Ok(published) => published,
            Err(_) => Err(BusError::Unavailable("no acknowledgement in time (simulated)".to_owned())),
        }
    }

    async fn consumed_until(&self) -> Option<Timestamp> {
        self.life.alive().await;
        let unknown = self.life.draw(|rng| rng.chance(0.05)) && !self.bus.world.is_healed();
        if unknown || self.life.refusal(Port::Bus).is_some() {
            return None;
        }
        Some(self.bus.group().consumed_until().unwrap_or_else(|| self.bus.world.clock.now()))
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError> {
        // Dropped on the way, where the answer is lost: then the group notices as with one that died.
        let join = async { Ok::<_, BusError>(SimConsumer::join(&self.life, &self.bus)) };
        Ok(Box::new(self.life.call(Port::Bus, "consume", join).await?))
    }

    async fn lag(&self) -> Option<u64> {
        self.life.alive().await;
        Some(self.bus.group().uncommitted())
    }

    async fn check(&self) -> Result<(), BusError> {
        self.life.call(Port::Bus, "check", async { Ok(()) }).await
    }
}
