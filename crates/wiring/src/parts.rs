//! The long-lived parts of a process, and how they end.

use std::{future::Future, time::Duration};

use signalpost_runtime::Shutdown;
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};

use crate::{Failure, threads::LAST_WORDS};

type Ended = (&'static str, anyhow::Result<()>);

/// Parts that run until they are told to drain. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct Parts {
    tasks: JoinSet<Ended>,
}

impl Parts {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts one.
    pub fn spawn<F, E>(&mut self, name: &'static str, part: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        self.spawn_on(&Handle::current(), name, part);
    }

    /// Starts one on these threads.
    pub fn spawn_on<F, E>(&mut self, threads: &Handle, name: &'static str, part: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        self.tasks.spawn_on(async move { (name, part.await.map_err(Into::into)) }, threads);
    }

    /// Waits for the first one to end before it was told to, which none of them should.
    pub async fn failed(&mut self) -> Failure {
        match self.tasks.join_next().await {
            Some(ended) => Failure::Other(match why(ended) {
                (name, Some(error)) => error.context(format!("{name} failed")),
                (name, None) => anyhow::anyhow!("{name} ended by itself"),
            }),
            None => std::future::pending().await,
        }
    }

    /// Runs them until `shutdown` drains, or until one of them fails; then drains them by `stop`, within `drain`. Gives the
    /// deadline, for what is to be done after.
    ///
    /// # Errors
    /// A part failed.
    pub async fn run(&mut self, shutdown: &Shutdown, stop: &Shutdown, drain: Duration) -> Result<Instant, Failure> {
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            failure = self.failed() => return Err(failure),
        }
        let deadline = Instant::now() + drain;
        self.drain(stop, deadline).await?;
        Ok(deadline)
    }

    /// Drains them; what is not done at the deadline is stopped at once. Gives the first failure.
    ///
    /// # Errors
    /// A part failed.
    pub async fn drain(&mut self, shutdown: &Shutdown, deadline: Instant) -> Result<(), Failure> {
        shutdown.drain();
        let mut result = Ok(());
        let all = self.join(&mut result);
        if timeout_at(deadline, all).await.is_err() {
            tracing::warn!("not all was finished in time; what is left is taken up at the next start");
            shutdown.stop();
            let all = self.join(&mut result);
            if timeout_at(Instant::now() + LAST_WORDS, all).await.is_err() {
                self.tasks.abort_all();
            }
        }
        result
    }

    async fn join(&mut self, result: &mut Result<(), Failure>) {
        while let Some(ended) = self.tasks.join_next().await {
            if let (name, Some(error)) = why(ended) {
                let failure = Failure::Other(error.context(format!("{name} failed while it was drained")));
                if result.is_ok() {
                    *result = Err(failure);
                }
            }
        }
    }
}

fn why(ended: Result<Ended, JoinError>) -> (&'static str, Option<anyhow::Error>) {
    match ended {
        Ok((name, result)) => (name, result.err()),
        Err(error) => ("a task", Some(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_by_itself_is_a_failure() {
        let mut parts = Parts::new();
        parts.spawn("one", std::future::pending::<io::Result<()>>());
        parts.spawn("two", async { Err::<(), _>(io::Error::other("broken")) });
        let Failure::Other(error) = parts.failed().await else { panic!("not a setting") };
        assert_eq!(format!("{error:#}"), "two failed: broken");
        parts.spawn("three", async { io::Result::Ok(()) });
        let Failure::Other(error) = parts.failed().await else { panic!("not a setting") };
        assert_eq!(format!("{error:#}"), "three ended by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_drain_in_time_is_stopped() {
        let shutdown = Shutdown::new();
        let mut parts = Parts::new();
        let (slow, quick) = (shutdown.clone(), shutdown.clone());
        parts.spawn("slow", async move {
            slow.stopped().await;
            io::Result::Ok(())
        });
        parts.spawn("quick", async move {
            quick.draining().await;
            io::Result::Ok(())
        });
        let began = Instant::now();
        let drained = parts.drain(&shutdown, began + Duration::from_secs(5)).await;
        assert!(drained.is_ok());
        assert_eq!(began.elapsed().as_secs(), 5);
        assert!(parts.tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_even_stop_is_given_up() {
        let mut parts = Parts::new();
        parts.spawn("deaf", std::future::pending::<io::Result<()>>());
        let began = Instant::now();
        let drained = parts.drain(&Shutdown::new(), began + Duration::from_secs(5)).await;
        assert!(drained.is_ok());
        assert_eq!(began.elapsed(), Duration::from_secs(5) + LAST_WORDS);
    }
}
