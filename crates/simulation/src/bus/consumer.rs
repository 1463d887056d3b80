//! One member of the group.

use std::sync::Arc;

use async_trait::async_trait;
use signalpost_bus::{BusError, Consumer, Delivered, Partition, Place};
use tokio::time::{Instant, sleep_until};

use super::{SimBus, group::MemberId};
use crate::life::{Life, Port};

#[derive(Debug)]
pub(super) struct SimConsumer {
    life: Arc<Life>,
    bus: Arc<SimBus>,
    member: MemberId,
    closed: bool,
}

impl SimConsumer {
    pub(super) fn join(life: &Arc<Life>, bus: &Arc<SimBus>) -> Self {
        let member = bus.group().join(Instant::now());
        bus.moved.notify_waiters();
        Self { life: Arc::clone(life), bus: Arc::clone(bus), member, closed: false }
    }
}

#[async_trait]
impl Consumer for SimConsumer {
    async fn receive(&mut self, most: usize) -> Result<Vec<Delivered>, BusError> {
        loop {
            let mut moved = std::pin::pin!(self.bus.moved.notified());
            moved.as_mut().enable();
            self.life.alive().await;
            if let Some(why) = self.life.refusal(Port::Bus) {
                return Err(BusError::Unavailable(why.to_owned()));
            }
            let received = self.bus.group().receive(self.member, most, Instant::now());
            match received {
                Ok(delivered) => {
                    self.bus.world.tell(&self.life.name, format_args!("receives {}", Shown(&delivered)));
                    return Ok(delivered);
                }
                Err(Some(at)) => tokio::select! {
                    biased;
                    () = moved => {}
                    () = sleep_until(at) => {}
                },
                Err(None) => moved.await,
            }
        }
    }

    fn commit(&mut self, next: Place) {
        if !self.life.dead.is_cancelled() {
            self.bus.group().commit(self.member, next, Instant::now());
        }
    }

    fn released(&mut self, partitions: &[Partition]) {
        if !self.life.dead.is_cancelled() {
            self.bus.group().released(self.member, partitions, Instant::now());
            self.bus.moved.notify_waiters();
        }
    }

    async fn set_aside(&mut self, _place: Place) -> Result<(), BusError> {
        self.life.call(Port::Bus, "set_aside", async { Ok(()) }).await
    }

    async fn close(mut self: Box<Self>) {
        self.life.alive().await;
        self.closed = true;
        self.bus.group().leave(self.member, Instant::now());
        self.bus.moved.notify_waiters();
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        if !self.closed {
            self.bus.group().lost(self.member, Instant::now());
            self.bus.moved.notify_waiters();
        }
    }
}

/// What was received, in few words.
struct Shown<'a>(&'a [Delivered]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for delivered in self.0 {
            match delivered {
                Delivered::Message { place, message, reread } => write!(
                    f,
                    "{}/{}@{}:{}{} ",
                    message.delivery_id,
                    message.attempt,
                    place.partition,
                    place.offset,
                    if *reread { "r" } else { "" }
                )?,
                Delivered::Undecodable { place, .. } => write!(f, "garbled@{}:{} ", place.partition, place.offset)?,
                Delivered::Revoked(partitions) => write!(f, "revoked {partitions:?} ")?,
            }
        }
        Ok(())
    }
}
