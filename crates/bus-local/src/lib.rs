//! The bus port inside one process.
//!
//! One bounded queue in memory, shared by every consumer. A message that a consumer has received stays with it until
//! it is committed; when the consumer is closed or dropped first, its messages go back to the front of the queue, as
//! rereads. Each consumer is a partition of its own, which it never loses: nothing is ever revoked here.
//!
//! Nothing survives the process. [`Bus::consumed_until`] says so (the start of the process), and the reconciler brings
//! back from the store what an earlier process had queued.
//!
//! The order is the order of publication, and there is no randomness: one sequence of calls gives one sequence of results. Who
//! publishes to a full bus waits for a commit, but not for long: so producers become no faster than consumers, and a bus that
//! nobody empties still answers.

mod consumer;
mod queue;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use signalpost_bus::{Bus, BusError, Consumer, Message};
use signalpost_core::{Clock, Timestamp};

use crate::{consumer::LocalConsumer, queue::Queue};

/// How much may be published and not yet committed. What is beyond waits for a while and is then refused, and its publisher's
/// anchor in the store brings it back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: usize,
    /// Bytes of `data` in them. An event that goes to many destinations counts once for each.
    pub data_bytes: usize,
    /// How long a batch waits for room.
    pub patience: Duration,
}

impl Default for Capacity {
    /// 100,000 messages with 128 MiB of data; 3 s, of the 5 that a publisher gives a bus.
    fn default() -> Self {
        Self { messages: 100_000, data_bytes: 128 * 1024 * 1024, patience: Duration::from_secs(3) }
    }
}

/// The bus. Cloning gives another handle of the same.
#[derive(Debug, Clone)]
pub struct LocalBus {
    queue: Arc<Queue>,
    started_at: Timestamp,
}

impl LocalBus {
    /// An empty bus. The time of this call is the start of the process to [`Bus::consumed_until`].
    pub fn new(clock: &dyn Clock, capacity: Capacity) -> Self {
        Self { queue: Arc::new(Queue::new(capacity)), started_at: clock.now() }
    }
}

#[async_trait]
impl Bus for LocalBus {
    async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        self.queue.publish(batch).await
    }

    async fn consumed_until(&self) -> Option<Timestamp> {
        Some(self.started_at)
    }

    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError> {
        Ok(Box::new(LocalConsumer::join(Arc::clone(&self.queue))))
    }

    async fn lag(&self) -> Option<u64> {
        u64::try_from(self.queue.uncommitted()).ok()
    }

    async fn check(&self) -> Result<(), BusError> {
        Ok(())
    }
}
