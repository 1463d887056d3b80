//! What publishers and consumers share.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use signalpost_bus::{BusError, Message, Partition};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::Capacity;

/// A message and what is known about it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    /// A consumer had received it and went away without committing it.
    pub(crate) reread: bool,
}

impl Entry {
    fn data_bytes(&self) -> usize {
        self.message.event.data.len()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Not yet received, oldest first.
    ready: VecDeque<Entry>,
    /// Published and not committed: `ready` and what consumers hold.
    messages: usize,
    data_bytes: usize,
    /// How many consumers have joined so far.
    joined: Partition,
}

/// The queue. Its lock is held for moves in memory only, never across an await.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: Capacity,
    state: Mutex<State>,
    /// Told whenever `ready` grows.
    grown: Notify,
    /// Told whenever less is uncommitted.
    shrunk: Notify,
}

impl Queue {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { capacity, state: Mutex::default(), grown: Notify::new(), shrunk: Notify::new() }
    }

    /// A panic elsewhere leaves the counts as they were between two moves, so a poisoned lock is still good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of the batch, once there is room for it, or nothing.
    pub(crate) async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError> {
        let data_bytes: usize = batch.iter().map(|message| message.event.data.len()).sum();
        let until = Instant::now() + self.capacity.patience;
        loop {
            let mut shrunk = std::pin::pin!(self.shrunk.notified());
            // Registered before looking, so that no commit in between is missed.
            shrunk.as_mut().enable();
            let Err(full) = self.reserve(batch.len(), data_bytes) else { break };
            if timeout_at(until, shrunk).await.is_err() {
                return Err(full);
            }
        }
        self.state().ready.extend(batch.into_iter().map(|message| Entry { message, reread: false }));
        self.grown.notify_waiters();
        Ok(())
    }

    /// Counts what comes in, if there is room for it.
    fn reserve(&self, messages: usize, data_bytes: usize) -> Result<(), BusError> {
        let mut state = self.state();
        if state.messages + messages > self.capacity.messages {
            return Err(BusError::Unavailable(format!("{} messages wait", state.messages)));
        }
        // A batch that is larger than all the room there is would never fit. It is in memory already, so it may come beside what is there.
        let most = self.capacity.data_bytes;
        let fits = state.data_bytes + data_bytes <= most || (data_bytes > most && state.data_bytes < most);
        if !fits {
            return Err(BusError::Unavailable(format!("{} bytes wait", state.data_bytes)));
        }
        state.messages += messages;
        state.data_bytes += data_bytes;
        Ok(())
    }

    /// Waits for at least one entry and takes up to `most`. They are taken in the same poll that returns them.
    pub(crate) async fn take(&self, most: usize) -> Vec<Entry> {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            // Registered before looking, so that nothing published in between is missed.
            grown.as_mut().enable();
            {
                let mut state = self.state();
                let count = most.max(1).min(state.ready.len());
                if count > 0 {
                    return state.ready.drain(..count).collect();
                }
            }
            grown.await;
        }
    }

    /// A consumer is done with these.
    pub(crate) fn forget(&self, entries: impl Iterator<Item = Entry>) {
        {
            let mut state = self.state();
            for entry in entries {
                state.messages -= 1;
                state.data_bytes -= entry.data_bytes();
            }
        }
        self.shrunk.notify_waiters();
    }

    /// A consumer goes and leaves these, oldest first.
    pub(crate) fn put_back(&self, entries: VecDeque<Entry>) {
        if entries.is_empty() {
            return;
        }
        {
            let mut state = self.state();
            for entry in entries.into_iter().rev() {
                state.ready.push_front(Entry { reread: true, ..entry });
            }
        }
        self.grown.notify_waiters();
    }

    /// A number for a new consumer.
    pub(crate) fn join(&self) -> Partition {
        let mut state = self.state();
        state.joined = state.joined.wrapping_add(1);
        state.joined
    }

    pub(crate) fn uncommitted(&self) -> usize {
        self.state().messages
    }
}
