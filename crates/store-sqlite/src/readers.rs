//! A small pool of connections that read. Each read is one transaction, runs on tokio's blocking threads and is
//! interrupted when it takes too long, so that a heavy list neither stalls the runtime nor keeps the log from being
//! checkpointed.

use std::{
    ffi::c_int,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use signalpost_store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    failure::{Failure, Outcome},
    open,
};

/// How many reads run at once.
const CONNECTIONS: usize = 4;

/// How long a read may take, with the time that it waits for a connection.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// How many steps of SQLite's machine, some microseconds, lie between two looks at whether a read is still waited for.
const STEPS: c_int = 1000;

/// The pool.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    /// There is no pool: reads run where they are asked for, on the connection that writes.
    #[cfg(feature = "simulation")]
    inline: Option<Arc<crate::simulation::Inline>>,
}

impl Readers {
    /// `cache_kib`: what each connection may keep of the database in memory.
    pub(crate) fn open(file: &Path, cache_kib: u32) -> Outcome<Self> {
        let idle = (0..CONNECTIONS).map(|_| open::reader(file, cache_kib)).collect::<Outcome<Vec<_>>>()?;
        Ok(Self {
            idle: Arc::new(Mutex::new(idle)),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            #[cfg(feature = "simulation")]
            inline: None,
        })
    }

    /// One without a pool.
    #[cfg(feature = "simulation")]
    pub(crate) fn inline(inline: Arc<crate::simulation::Inline>) -> Self {
        Self { idle: Arc::default(), permits: Arc::new(Semaphore::new(0)), inline: Some(inline) }
    }

    /// Runs `read` in a transaction of its own, on what is committed now.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        #[cfg(feature = "simulation")]
        if let Some(inline) = &self.inline {
            return inline.read(read).map_err(|failure| failure.0);
        }
        let closed = || StoreError::Unavailable("the store is closed".into());
        let read = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
            let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(closed)?;
            let lent = Lent { connection: Some(connection), idle: Arc::clone(&self.idle), _permit: permit };
            let stop = StopWhenDropped::default();
            let stopped = Arc::clone(&stop.0);
            // Dropping this future leaves the read to end by SQLite's next look at the flag.
            match tokio::task::spawn_blocking(move || lent.run(stopped, read)).await {
                Ok(result) => result.map_err(|failure| failure.0),
                Err(_) => Err(StoreError::Internal("a read panicked".into())),
            }
        };
        let too_long = |_| StoreError::Unavailable("the query takes too long, or others before it do".into());
        tokio::time::timeout(LONGEST_READ, read).await.map_err(too_long)?
    }
}

#[cfg(test)]
impl Readers {
    /// Whether one of its connections is not in use.
    pub(crate) fn has_idle(&self) -> bool {
        self.permits.available_permits() > 0
    }
}

/// Tells a read that nobody waits for it any more. Not by an interrupt, which does nothing where it comes before the statement begins.
#[derive(Default)]
struct StopWhenDropped(Arc<AtomicBool>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection that goes back to the pool in any case. The fields are dropped in this order: the permit last.
struct Lent {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    fn run<T>(self, stopped: Arc<AtomicBool>, read: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let connection = self.connection.as_ref().ok_or_else(|| Failure::internal("a reader without a connection"))?;
        connection.progress_handler(STEPS, Some(move || stopped.load(Ordering::Relaxed)))?;
        // Dropping it rolls back, which for a read is the same as committing.
        let transaction = connection.unchecked_transaction()?;
        let result = read(&transaction);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        drop(transaction);
        result
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
