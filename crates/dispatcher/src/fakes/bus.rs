//! A bus of one consumer whose every move a test makes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use signalpost_bus::{Bus, BusError, Consumer, Delivered, Message, Partition, Place};
use signalpost_core::Timestamp;
use tokio::sync::Notify;

/// What a fake bus has and had.
#[derive(Debug, Default)]
pub(crate) struct BusState {
    pub queue: VecDeque<Delivered>,
    pub next_offset: i64,
    pub commits: Vec<Place>,
    pub released: Vec<Partition>,
    pub set_aside: Vec<Place>,
    /// Setting aside never ends.
    pub set_aside_hangs: bool,
    pub closed: bool,
}

/// A bus of one consumer whose every move a test makes.
#[derive(Debug, Default)]
pub(crate) struct FakeBus {
    state: Mutex<BusState>,
    pushed: Notify,
}

impl FakeBus {
    pub(crate) fn state(&self) -> MutexGuard<'_, BusState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn push(&self, item: Delivered) {
        self.state().queue.push_back(item);
        self.pushed.notify_one();
    }

    /// Hands a message over, in partition 0.
    pub(crate) fn send(&self, message: Message) -> Place {
        let place = self.next_place();
        self.push(Delivered::Message { place, message: Arc::new(message), reread: false });
        place
    }

    pub(crate) fn next_place(&self) -> Place {
        let mut state = self.state();
        state.next_offset += 1;
        Place { partition: 0, epoch: 1, offset: state.next_offset - 1 }
    }

    /// The offset up to which partition 0 is committed.
    pub(crate) fn committed(&self) -> i64 {
        self.state().commits.last().map_or(0, |place| place.offset)
    }
}

/// The bus as the engine gets it.
#[derive(Debug, Clone)]
pub(crate) struct BusHandle(pub Arc<FakeBus>);

#[async_trait]
impl Bus for BusHandle {
    async fn publish(&self, _batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        Ok(())
    }
    async fn consumed_until(&self) -> Option<Timestamp> {
        None
    }
    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError> {
        Ok(Box::new(self.clone()))
    }
    async fn lag(&self) -> Option<u64> {
        None
    }
    async fn check(&self) -> Result<(), BusError> {
        Ok(())
    }
}

#[async_trait]
impl Consumer for BusHandle {
    async fn receive(&mut self, most: usize) -> Result<Vec<Delivered>, BusError> {
        loop {
            {
                let mut state = self.0.state();
                let count = state.queue.len().min(most);
                if count > 0 {
                    return Ok(state.queue.drain(..count).collect());
                }
            }
            self.0.pushed.notified().await;
        }
    }
    fn commit(&mut self, next: Place) {
        self.0.state().commits.push(next);
    }
    fn released(&mut self, partitions: &[Partition]) {
        self.0.state().released.extend(partitions);
    }
    async fn set_aside(&mut self, place: Place) -> Result<(), BusError> {
        if self.0.state().set_aside_hangs {
            std::future::pending::<()>().await;
        }
        self.0.state().set_aside.push(place);
        Ok(())
    }
    async fn close(self: Box<Self>) {
        self.0.state().closed = true;
    }
}
