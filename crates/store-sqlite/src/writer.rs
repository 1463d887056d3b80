//! The one thread that writes.
//!
//! Whatever was asked for while the commit before ran becomes one transaction: all jobs, one COMMIT, and then all answers.
//! No timer: an idle store adds no wait. Where a job fails, the transaction is taken back and all of them run again, each
//! within a savepoint, so that what fails takes back only its own part. Not at once with savepoints: `SQLite` copies each
//! page that is written within one, for each of them.
//!
//! A caller that goes away changes nothing: its job runs whole, or was never handed in.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::Connection;
use signalpost_core::{Clock, Entropy};
use signalpost_store::StoreError;
use tokio::sync::{oneshot, watch};

use crate::{
    checkpoints::Checkpoints,
    failure::{Failure, Outcome},
    statements::Statements,
    tx::Tx,
};

/// How many jobs one transaction holds at most.
const MOST_JOBS: usize = 256;

/// A transaction that takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_millis(20);

/// The handle of the thread. Dropping it lets the thread finish what was handed in, and waits for that.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    refused: Arc<AtomicBool>,
    /// There is no thread: each job is its own group, run where it is handed in.
    #[cfg(feature = "simulation")]
    inline: Option<Arc<crate::simulation::Inline>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(work: Work) -> Outcome<Self> {
        let (queue, jobs) = mpsc::channel();
        let refused = Arc::clone(&work.refused);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || work.run(&jobs))
            .map_err(|error| StoreError::Unavailable(format!("cannot start the writer: {error}")))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            refused,
            #[cfg(feature = "simulation")]
            inline: None,
        })
    }

    /// One without a thread.
    #[cfg(feature = "simulation")]
    pub(crate) fn inline(inline: Arc<crate::simulation::Inline>) -> Self {
        let refused = Arc::clone(&inline.work().refused);
        Self { queue: None, thread: None, refused, inline: Some(inline) }
    }

    /// Whether the disk refused what was written last. Set by the thread, as a write that has nothing to write proves nothing.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// It takes writes again.
    pub(crate) fn is_taken(&self) {
        self.refused.store(false, Ordering::Relaxed);
    }

    /// Runs `work` in the next transaction, and returns when that is on disk. It may run twice; what it wrote the first
    /// time is taken back before.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Tx<'_>) -> Outcome<T> + Send + 'static,
    {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work, result: None, reply });
        #[cfg(feature = "simulation")]
        if let Some(inline) = &self.inline {
            {
                let work = inline.work();
                work.commit(vec![job], &work.statements());
            }
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
    /// What it is, for the log.
    fn name(&self) -> &'static str;
    fn run(&mut self, tx: &Tx<'_>) -> Outcome<()>;
    fn answer(self: Box<Self>, end: Result<(), StoreError>);
}

struct Task<T, F> {
    work: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&Tx<'_>) -> Outcome<T> + Send,
{
    fn name(&self) -> &'static str {
        std::any::type_name::<F>()
    }

    fn run(&mut self, tx: &Tx<'_>) -> Outcome<()> {
        self.result = None;
        let result = (self.work)(tx)?;
        tx.settle()?;
        self.result = Some(result);
        Ok(())
    }

    fn answer(self: Box<Self>, end: Result<(), StoreError>) {
        let Self { work, result, reply } = *self;
        // What it holds is the caller's alone by then.
        drop(work);
        let result = end.and_then(|()| result.ok_or_else(|| StoreError::Internal("a job has no result".into())));
        // The caller may be gone.
        let _ = reply.send(result);
    }
}

/// What a job makes when it first runs, for all of its runs.
pub(crate) struct MadeOnce<T, F> {
    make: Option<F>,
    made: Option<T>,
}

impl<T, F: FnOnce() -> T> MadeOnce<T, F> {
    pub(crate) fn new(make: F) -> Self {
        Self { make: Some(make), made: None }
    }

    /// It. An error where making it panicked, in a run before.
    pub(crate) fn get(&mut self) -> Outcome<&T> {
        if let Some(make) = self.make.take() {
            self.made = Some(make());
        }
        self.made.as_ref().ok_or_else(|| Failure::internal("what is to be written could not be made"))
    }
}

#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) connection: Connection,
    pub(crate) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    changes: watch::Sender<u64>,
    /// None: the database is in memory.
    checkpoints: Option<Checkpoints>,
    refused: Arc<AtomicBool>,
}

impl Work {
    /// `changes` moves after each commit that changed destinations, before its callers hear of it.
    pub(crate) fn new(
        connection: Connection,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        changes: watch::Sender<u64>,
        checkpoints: Option<Checkpoints>,
    ) -> Self {
        Self { connection, clock, entropy, changes, checkpoints, refused: Arc::default() }
    }

    fn run(&self, jobs: &mpsc::Receiver<Box<dyn Job>>) {
        let statements = self.statements();
        while let Ok(first) = jobs.recv() {
            let mut group = vec![first];
            while group.len() < MOST_JOBS
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            self.commit(group, &statements);
            if let Some(checkpoints) = &self.checkpoints {
                checkpoints.after_commit(&self.connection);
            }
        }
    }

    fn statements(&self) -> Rc<Statements<'_>> {
        Rc::new(Statements::new(&self.connection))
    }

    /// Runs a group in one transaction and answers it.
    fn commit<'c>(&'c self, mut group: Vec<Box<dyn Job>>, statements: &Rc<Statements<'c>>) {
        let mut ends = Vec::with_capacity(group.len());
        let committed = self.transact(&mut group, statements, &mut ends);
        if committed.is_err() && !self.connection.is_autocommit() {
            // Where even this fails, BEGIN fails next, and callers are told that the store is away.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        if committed.is_err() || ends.iter().any(|end| matches!(end, Err(StoreError::Unavailable(_)))) {
            self.refused.store(true, Ordering::Relaxed);
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
    fn transact<'c>(
        &'c self,
        group: &mut [Box<dyn Job>],
        statements: &Rc<Statements<'c>>,
        ends: &mut Vec<Result<(), StoreError>>,
    ) -> Outcome<bool> {
        let run = |sql| statements.with(sql, |statement| Ok(statement.execute([]).map(drop)?));
        let began = self.clock.elapsed();
        run("BEGIN IMMEDIATE")?;
        let mut ran = self.run_jobs(group, statements, Failing::EndsAll, ends)?;
        if ends.iter().any(Result::is_err) {
            run("ROLLBACK")?;
            if let [_] = group {
                return Ok(false);
            }
            ends.clear();
            run("BEGIN IMMEDIATE")?;
            ran = self.run_jobs(group, statements, Failing::EndsItself, ends)?;
        }
        let at = self.clock.elapsed();
        run("COMMIT")?;
        let end = self.clock.elapsed();
        if end - began > SLOW {
            let (total_ms, commit_ms) = ((end - began).as_millis(), (end - at).as_millis());
            let (jobs, job, job_ms) = (group.len(), ran.slowest.1, ran.slowest.0.as_millis());
            tracing::debug!(total_ms, commit_ms, jobs, job, job_ms, "store.slow_transaction");
        }
        Ok(ran.routing_moved)
    }

    /// Runs jobs one after the other; `ends` tells what came of each, up to one that ends all. An error means that SQLite
    /// itself took the whole transaction back (disk full, I/O error).
    fn run_jobs<'c>(
        &'c self,
        group: &mut [Box<dyn Job>],
        statements: &Rc<Statements<'c>>,
        failing: Failing,
        ends: &mut Vec<Result<(), StoreError>>,
    ) -> Outcome<Ran> {
        let run = |sql| statements.with(sql, |statement| Ok(statement.execute([]).map(drop)?));
        let mut ran = Ran::default();
        let mut at = self.clock.elapsed();
        for job in group {
            if failing == Failing::EndsItself {
                run("SAVEPOINT job")?;
            }
            let name = job.name();
            let tx = Tx::new(&self.connection, Rc::clone(statements), self.clock.now(), &*self.entropy);
            match attempt(&mut **job, &tx) {
                Ok(()) => {
                    ran.routing_moved |= tx.has_routing_moved();
                    ends.push(Ok(()));
                }
                Err(failure) if self.connection.is_autocommit() => return Err(failure),
                Err(failure) => {
                    tracing::debug!(job = name, error = %failure.0, again = failing == Failing::EndsAll, "store.job_failed");
                    ends.push(Err(failure.0));
                    if failing == Failing::EndsAll {
                        break;
                    }
                    run("ROLLBACK TO job")?;
                }
            }
            if failing == Failing::EndsItself {
                run("RELEASE job")?;
            }
            let now = self.clock.elapsed();
            ran.slowest = ran.slowest.max((now - at, name));
            at = now;
        }
        Ok(ran)
    }
}

/// What a job that fails ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    EndsAll,
    EndsItself,
}

/// What is known of jobs that ran.
#[derive(Debug, Default)]
struct Ran {
    routing_moved: bool,
    /// How long it took, and its name.
    slowest: (Duration, &'static str),
}

/// Runs a job; a panic is its failure, not the writer's.
fn attempt(job: &mut dyn Job, tx: &Tx<'_>) -> Outcome<()> {
    catch_unwind(AssertUnwindSafe(|| job.run(tx)))
        .unwrap_or_else(|panic| Err(Failure::internal(format!("a write panicked: {}", text(&*panic)))))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
