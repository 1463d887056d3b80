//! Batching without a timer: a batch is whatever arrived while the one before was being written.
//!
//! An idle system adds no wait, a busy one writes large batches. The work runs in a task of its own, so
//! a caller that gives up never cancels it.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, ready},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
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

/// What waits, for a writer that takes it at the last moment. Cloning gives another handle of the same.
pub struct Intake<T, R>(Arc<Mutex<Queue<T, R>>>);

struct Queue<T, R> {
    /// Taken out to see that there is one.
    first: Option<Entry<T, R>>,
    entries: mpsc::Receiver<Entry<T, R>>,
}

impl<T, R> Clone for Intake<T, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, R> Intake<T, R> {
    fn lock(&self) -> MutexGuard<'_, Queue<T, R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something. False: there never will be again.
    async fn ready(&self) -> bool {
        poll_fn(|cx| {
            let mut queue = self.lock();
            if queue.first.is_none() {
                queue.first = ready!(queue.entries.poll_recv(cx));
            }
            Poll::Ready(queue.first.is_some())
        })
        .await
    }

    /// Up to so many of what waits now, in the order in which they came. Where nobody takes any, they wait on.
    pub fn take(&self, most: usize) -> Vec<Entry<T, R>> {
        let mut queue = self.lock();
        let mut taken = Vec::with_capacity(most.min(queue.entries.len() + 1));
        while taken.len() < most
            && let Some(entry) = queue.first.take().or_else(|| queue.entries.try_recv().ok())
        {
            taken.push(entry);
        }
        taken
    }

    /// Looks at the one that came first.
    pub fn look_at_first<V>(&self, look: impl FnOnce(&T) -> V) -> Option<V> {
        self.lock().first.as_ref().map(|entry| look(&entry.item))
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
        Self::start_late(capacity, move |intake| write(intake.take(most)))
    }

    /// As [`Self::start`], but `write` takes the entries itself: where it has to wait for its turn first, as late as it can. It is
    /// called again for those that it leaves.
    pub fn start_late<W, F>(capacity: usize, mut write: W) -> (Self, JoinHandle<()>)
    where
        W: FnMut(Intake<T, R>) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (queue, entries) = mpsc::channel(capacity);
        let intake = Intake(Arc::new(Mutex::new(Queue { first: None, entries })));
        let task = tokio::spawn(async move {
            while intake.ready().await {
                // Whoever is about to hand something in goes first, where there is anybody: larger batches, and no wait.
                yield_now().await;
                write(intake.clone()).await;
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
        self.submit_telling(item, || {}).await
    }

    /// As [`Self::submit_waiting`], and tells when the item has its place.
    ///
    /// # Errors
    /// The batcher stopped.
    pub async fn submit_telling(&self, item: T, handed_in: impl FnOnce()) -> Result<R, Rejected> {
        let (reply, result) = oneshot::channel();
        self.queue.send(Entry { item, reply }).await.map_err(|_| Rejected::Stopped)?;
        handed_in();
        result.await.map_err(|_| Rejected::Stopped)
    }
}
