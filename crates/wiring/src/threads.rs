//! Threads on which tasks run.

use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::Failure;

/// What threads get at the end.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Threads for a part of a process, beside those of the rest: so that what floods the rest does not keep that part waiting,
/// and the reverse. Dropping it leaves them to end by themselves.
#[derive(Debug)]
pub struct Threads {
    handle: Handle,
    /// None: they end.
    runtime: Option<Runtime>,
}

impl Threads {
    /// Starts them. `name` is what the system calls them.
    ///
    /// # Errors
    /// The system has no threads left.
    pub fn start(name: &'static str) -> Result<Self, Failure> {
        let runtime = start(name)?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where tasks are spawned.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends them, with the tasks that are left, and waits for it: what these hold, the database above all, is closed after.
    pub async fn end(mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LAST_WORDS));
        // A panic was reported by the panic hook; there is nobody to tell here.
        let _ = ended.await;
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One core is left to what works beside the runtime: the thread that writes the database, or that speaks with Kafka. On two
/// cores one worker is cheaper than two that wake each other for every event.
pub(crate) fn start(name: &'static str) -> Result<Runtime, Failure> {
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
    let runtime = Builder::new_multi_thread().worker_threads(workers).thread_name(name).enable_all().build();
    Ok(runtime.context("cannot start threads")?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_task_runs_there_and_ends_with_them() {
        let threads = Threads::start("apart").expect("threads");
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        let running = threads.handle().spawn(async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(running.await.expect("it ran").as_deref(), Some("apart"));
        threads.handle().spawn(async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        threads.end().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
