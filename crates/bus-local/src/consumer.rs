//! One member of the group: what it has received and not yet committed.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use signalpost_bus::{BusError, Consumer, Delivered, Partition, Place};

use crate::queue::{Entry, Queue};

/// A consumer keeps its partition for life, so there is only one assignment.
const EPOCH: u32 = 1;

#[derive(Debug)]
pub(crate) struct LocalConsumer {
    queue: Arc<Queue>,
    partition: Partition,
    /// Received and not committed, oldest first, without gaps.
    held: VecDeque<Entry>,
    /// The offset of the first of `held`.
    first: i64,
}

impl LocalConsumer {
    pub(crate) fn join(queue: Arc<Queue>) -> Self {
        let partition = queue.join();
        Self { queue, partition, held: VecDeque::new(), first: 0 }
    }

    fn next_offset(&self) -> i64 {
        self.first + i64::try_from(self.held.len()).unwrap_or(i64::MAX)
    }
}

#[async_trait]
impl Consumer for LocalConsumer {
    async fn receive(&mut self, most: usize) -> Result<Vec<Delivered>, BusError> {
        let entries = self.queue.take(most).await;
        let mut delivered = Vec::with_capacity(entries.len());
        for entry in entries {
            let place = Place { partition: self.partition, epoch: EPOCH, offset: self.next_offset() };
            let (message, reread) = (Arc::clone(&entry.message), entry.reread);
            self.held.push_back(entry);
            delivered.push(Delivered::Message { place, message, reread });
        }
        Ok(delivered)
    }

    fn commit(&mut self, next: Place) {
        if next.partition != self.partition || next.epoch != EPOCH {
            return;
        }
        let done = usize::try_from(next.offset.saturating_sub(self.first)).unwrap_or(0).min(self.held.len());
        self.first += i64::try_from(done).unwrap_or(0);
        self.queue.forget(self.held.drain(..done));
    }

    /// Nothing is ever revoked.
    fn released(&mut self, _partitions: &[Partition]) {}

    /// Nothing is ever undecodable: messages are not bytes here.
    async fn set_aside(&mut self, _place: Place) -> Result<(), BusError> {
        Ok(())
    }

    /// Dropping does it.
    async fn close(self: Box<Self>) {}
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        self.queue.put_back(std::mem::take(&mut self.held));
    }
}
