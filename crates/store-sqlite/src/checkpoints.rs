//! Copies the log's pages into the database file beside the writer, instead of within its commits.
//!
//! SQLite's own way is that the commit which makes the log long enough copies and flushes tens of megabytes, while all that
//! came meanwhile waits. Here a thread with a connection of its own does that in small parts: by passive checkpoints, which
//! wait for nobody, and for which nobody waits. Under load such a checkpoint never meets the end of the log, as that moves
//! on meanwhile, and only a log that is copied whole may begin again at its start: once it is long enough and little is
//! left, the writer copies that little between two transactions.
//!
//! It is about speed only. What is committed is in the log, flushed, and SQLite keeps it there until the file has it.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::Connection;
use signalpost_store::StoreError;

use crate::{failure::Outcome, open};

/// So many bytes are worth a checkpoint.
const PART: i64 = 8 * 1024 * 1024;

/// From so many bytes on the log shall begin again.
const LONG: i64 = 47 * 1024 * 1024;

/// The most bytes that the writer copies itself, for that; and an eighth of those by which the log is too long: the faster it
/// grows, the more comes during a checkpoint.
const REST: i64 = 1024 * 1024;

/// The length that the log gets ahead of its use: to flush what lies within a file is one write less than to make it longer.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// How long it rests after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The handle of the thread. Dropping it waits for the checkpoint that runs.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    wake: Option<mpsc::Sender<()>>,
    /// It was woken, and has not finished. Written by both.
    busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Bytes of a page.
    page: i64,
}

impl Checkpoints {
    /// Starts the thread. `database` is the open file, to flush it; it must stay open for as long as any connection is: where
    /// a process closes a file, it loses all of its locks on it.
    pub(crate) fn start(file: &Path, database: Arc<File>) -> Outcome<Self> {
        let connection = open::checkpointer(file)?;
        let page = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let (wake, wakes) = mpsc::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let mut work = Work { connection, database, log: Some(log.into()), busy: Arc::clone(&busy) };
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || work.run(&wakes))
            .map_err(|error| StoreError::Unavailable(format!("cannot start the checkpoints: {error}")))?;
        Ok(Self { wake: Some(wake), busy, thread: Some(thread), page })
    }

    /// What the writer does on its connection when it has answered a group.
    pub(crate) fn after_commit(&self, writer: &Connection) {
        if self.busy.load(Ordering::Acquire) {
            return;
        }
        let look = || -> Outcome<()> {
            let Log { pages, copied } = checkpoint(writer, "NOOP")?;
            let (log, left) = (pages * self.page, (pages - copied) * self.page);
            if log >= LONG && left <= REST + (log - LONG) / 8 {
                if left > 0 {
                    checkpoint(writer, "PASSIVE")?;
                }
            } else if (left >= PART || log >= LONG)
                && let Some(wake) = &self.wake
            {
                self.busy.store(true, Ordering::Release);
                // The thread ends only after this.
                let _ = wake.send(());
            }
            Ok(())
        };
        if let Err(failure) = look() {
            tracing::warn!(error = %failure.0, "store.checkpoint_failed");
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the panic hook; there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

/// How long the log is.
struct Log {
    pages: i64,
    /// So many of them are in the database file.
    copied: i64,
}

fn checkpoint(connection: &Connection, mode: &str) -> Outcome<Log> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([], |row| Ok(Log { pages: row.get(1)?, copied: row.get(2)? }))?)
}

struct Work {
    connection: Connection,
    database: Arc<File>,
    /// The file of the log, until it has its length.
    log: Option<PathBuf>,
    busy: Arc<AtomicBool>,
}

impl Work {
    fn run(&mut self, wakes: &mpsc::Receiver<()>) {
        while wakes.recv().is_ok() {
            if let Some(log) = self.log.take()
                && let Err(error) = lengthen(&log)
            {
                tracing::debug!(error = %error, "store.log_not_lengthened");
            }
            if let Err(failure) = self.part() {
                tracing::warn!(error = %failure.0, "store.checkpoint_failed");
                // Nobody wakes it while it is busy: this waits, or ends with the writer.
                let _ = wakes.recv_timeout(PAUSE);
            }
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Copies what there is, and flushes it: SQLite itself flushes only when it has met the end of the log, and it would be the
    /// writer who waits for that.
    fn part(&self) -> Outcome<()> {
        checkpoint(&self.connection, "PASSIVE")?;
        self.database.sync_data().map_err(|error| StoreError::Unavailable(format!("the disk fails: {error}")))?;
        Ok(())
    }
}

/// Appends zeros, which SQLite takes for the end of the log. Whatever the writer writes meanwhile, at places of its own, this
/// comes behind it.
fn lengthen(log: &Path) -> std::io::Result<()> {
    let zeros = vec![0; 1024 * 1024];
    let mut file = OpenOptions::new().append(true).open(log)?;
    while file.metadata()?.len() < LOG_BYTES {
        file.write_all(&zeros)?;
        file.sync_data()?;
    }
    Ok(())
}
