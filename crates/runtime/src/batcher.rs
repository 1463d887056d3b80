//! Batching without a timer: a batch is whatever arrived while the one before was being written.
//!
//! An idle system adds no wait, a busy one writes large batches. The work runs in a task of its own, so
//! a caller that gives up never cancels it.

use std::future::Future;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// The batcher has stopped, or its queue is full. Nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// As many wait as may.
    Full,
    /// It takes nothing any more.
    Stopped,
}

/// One item and where its result goes.
pub struct Entry<T, R> {
    /// What is to be done.
    pub item: T,
    reply: oneshot::Sender<R>,
}

impl<T, R> Entry<T, R> {
    /// Hands the result to the caller, who may have gone.
    pub fn reply(self, result: R) {
        let _gone = self.reply.send(result);
    }

    /// Takes the item out, for a writer that consumes it.
    pub fn split(self) -> (T, oneshot::Sender<R>) {
        (self.item, self.reply)
    }

    /// Puts both together again, to try once more.
    pub fn join(item: T, reply: oneshot::Sender<R>) -> Self {
        Self { item, reply }
    }
}

/// The sending side. Cloning gives another sender to the same queue.
pub struct Batcher<T, R> {
    queue: mpsc::Sender<Entry<T, R>>,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts the task. `write` gets up to `most` entries at once and replies to each. The task ends, and its handle
    /// with it, when every sender is gone and all entries are written.
    pub fn start<W, F>(capacity: usize, most: usize, mut write: W) -> (Self, JoinHandle<()>)
    where
        W: FnMut(Vec<Entry<T, R>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (queue, mut entries) = mpsc::channel(capacity);
        let task = tokio::spawn(async move {
            let mut batch = Vec::new();
            while entries.recv_many(&mut batch, most).await > 0 {
                write(std::mem::take(&mut batch)).await;
            }
        });
        (Self { queue }, task)
    }

    /// Hands one item in and waits for its result.
    ///
    /// # Errors
    /// The queue is full (at once, so that the caller can answer 503), or the batcher stopped.
    pub async fn submit(&self, item: T) -> Result<R, Rejected> {
        let (reply, result) = oneshot::channel();
        self.queue.try_send(Entry { item, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Rejected::Full,
            mpsc::error::TrySendError::Closed(_) => Rejected::Stopped,
        })?;
        result.await.map_err(|_| Rejected::Stopped)
    }

    /// As [`Self::submit`], but waits for a place in the queue.
    ///
    /// # Errors
    /// The batcher stopped.
    pub async fn submit_waiting(&self, item: T) -> Result<R, Rejected> {
        let (reply, result) = oneshot::channel();
        self.queue.send(Entry { item, reply }).await.map_err(|_| Rejected::Stopped)?;
        result.await.map_err(|_| Rejected::Stopped)
    }
}
