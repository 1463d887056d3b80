//! The one thread that writes.
//!
//! Whatever was asked for while the commit before ran becomes one transaction: a savepoint per job, so that a job that
//! fails takes back only its own part, one COMMIT, and then all answers. No timer: an idle store adds no wait.
//!
//! A caller that goes away changes nothing: its job runs whole, or was never handed in.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use rusqlite::Connection;
use signalpost_core::{Clock, Entropy};
use signalpost_store::StoreError;
use tokio::sync::{oneshot, watch};

use crate::{
    failure::{Failure, Outcome},
    tx::Tx,
};

/// How many jobs one transaction holds at most.
const MOST_JOBS: usize = 256;

/// The handle of the thread. Dropping it lets the thread finish what was handed in, and waits for that.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    /// There is no thread: each job is its own group, run where it is handed in.
    #[cfg(feature = "simulation")]
    inline: Option<Arc<crate::simulation::Inline>>,
}

impl Writer {
    /// Starts the thread. `changes` moves after each commit that changed destinations, before its callers hear of it.
    pub(crate) fn start(
        connection: Connection,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        changes: watch::Sender<u64>,
    ) -> Outcome<Self> {
        let (queue, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || Work { connection, clock, entropy, changes }.run(&jobs))
            .map_err(|error| StoreError::Unavailable(format!("cannot start the writer: {error}")))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            #[cfg(feature = "simulation")]
            inline: None,
        })
    }

    /// One without a thread.
    #[cfg(feature = "simulation")]
    pub(crate) const fn inline(inline: Arc<crate::simulation::Inline>) -> Self {
        Self { queue: None, thread: None, inline: Some(inline) }
    }

    /// Runs `work` in the next transaction, and returns when that is on disk.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Outcome<T> + Send + 'static,
    {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work: Some(work), result: None, reply });
        #[cfg(feature = "simulation")]
        if let Some(inline) = &self.inline {
            inline.work().commit(vec![job]);
            return answer.await.map_err(|_| closed())?;
        }
        self.queue.as_ref().ok_or_else(closed)?.send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread was reported by the panic hook; there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

/// Something to write.
trait Job: Send {
    fn run(&mut self, tx: &Tx<'_>) -> Outcome<()>;
    fn answer(self: Box<Self>, end: Result<(), StoreError>);
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Tx<'_>) -> Outcome<T> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> Outcome<()> {
        let work = self.work.take().ok_or_else(|| Failure::internal("a job ran twice"))?;
        self.result = Some(work(tx)?);
        tx.settle()
    }

    fn answer(self: Box<Self>, end: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result = end.and_then(|()| result.ok_or_else(|| StoreError::Internal("a job has no result".into())));
        // The caller may be gone.
        let _ = reply.send(result);
    }
}

#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) connection: Connection,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) changes: watch::Sender<u64>,
}

impl Work {
    fn run(&self, jobs: &mpsc::Receiver<Box<dyn Job>>) {
        while let Ok(first) = jobs.recv() {
            let mut group = vec![first];
            while group.len() < MOST_JOBS
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            self.commit(group);
        }
    }

    /// Runs a group in one transaction and answers it.
    fn commit(&self, mut group: Vec<Box<dyn Job>>) {
        let mut ends = Vec::with_capacity(group.len());
        let committed = self.transact(&mut group, &mut ends);
        if committed.is_err() && !self.connection.is_autocommit() {
            // Where even this fails, BEGIN fails next, and callers are told that the store is away.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        match committed {
            Ok(routing_moved) => {
                if routing_moved {
                    self.changes.send_modify(|count| *count += 1);
                }
                for (job, end) in group.into_iter().zip(ends) {
                    job.answer(end);
                }
            }
            Err(Failure(error)) => {
                tracing::warn!(error = %error, jobs = group.len(), "store.transaction_failed");
                let shared = match error {
                    StoreError::Unavailable(text) => StoreError::Unavailable(text),
                    other => StoreError::Unavailable(other.to_string()),
                };
                for (place, job) in group.into_iter().enumerate() {
                    // Who was refused keeps the reason; the others learn that nothing is known.
                    let own = ends.get(place).and_then(|end| end.clone().err());
                    job.answer(Err(own.unwrap_or_else(|| shared.clone())));
                }
            }
        }
    }

    /// Whether the routing moved. An error means that nothing was committed, or that it is not known.
    fn transact(&self, group: &mut [Box<dyn Job>], ends: &mut Vec<Result<(), StoreError>>) -> Outcome<bool> {
        self.statement("BEGIN IMMEDIATE")?;
        let alone = group.len() == 1;
        let mut routing_moved = false;
        for job in group {
            if !alone {
                self.statement("SAVEPOINT job")?;
            }
            let tx = Tx::new(&self.connection, self.clock.now(), &*self.entropy);
            match attempt(&mut **job, &tx) {
                Ok(()) => {
                    routing_moved |= tx.has_routing_moved();
                    ends.push(Ok(()));
                }
                // SQLite itself took the whole transaction back (disk full, I/O error).
                Err(failure) if self.connection.is_autocommit() => return Err(failure),
                Err(failure) => {
                    ends.push(Err(failure.0));
                    self.statement(if alone { "ROLLBACK" } else { "ROLLBACK TO job" })?;
                    if alone {
                        return Ok(false);
                    }
                }
            }
            if !alone {
                self.statement("RELEASE job")?;
            }
        }
        self.statement("COMMIT")?;
        Ok(routing_moved)
    }

    fn statement(&self, sql: &str) -> Outcome<()> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

/// Runs a job; a panic is its failure, not the writer's.
fn attempt(job: &mut dyn Job, tx: &Tx<'_>) -> Outcome<()> {
    catch_unwind(AssertUnwindSafe(|| job.run(tx)))
        .unwrap_or_else(|panic| Err(Failure::internal(format!("a write panicked: {}", text(&*panic)))))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
