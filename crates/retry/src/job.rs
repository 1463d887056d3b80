//! A job that runs again and again and outlives its errors.

use std::time::Duration;

use async_trait::async_trait;
use metrics::counter;
use signalpost_bus::BusError;
use signalpost_runtime::Shutdown;
use signalpost_store::StoreError;
use signalpost_telemetry::names;
use tokio::{sync::Notify, time::sleep};

/// The first pause after an error; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest pause after errors of a job that runs often: when what was away is back, all moves again soon.
const SHORT_BACKOFF: Duration = Duration::from_secs(2);

/// The longest pause after errors of a job that runs seldom.
const LONG_BACKOFF: Duration = Duration::from_secs(60);

/// Why a step failed. It runs again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// When a job runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// There is more to do.
    Now,
    /// After so long.
    After(Duration),
    /// After its interval.
    Later,
}

/// One job. A step ends by itself in bounded time and is not cancelled by a drain.
#[async_trait]
pub(crate) trait Job: Send + 'static {
    /// In logs and metrics.
    const NAME: &'static str;

    /// The pause between steps when there is nothing to do.
    fn interval(&self) -> Duration;

    /// Ends a pause early.
    fn wake(&self) -> Option<&Notify> {
        None
    }

    /// Does one step.
    async fn step(&mut self) -> Result<Again, JobError>;
}

/// Runs a job until the shutdown drains.
pub(crate) async fn drive<J: Job>(mut job: J, shutdown: Shutdown) {
    let mut failures = 0;
    while !shutdown.is_draining() {
        let (pause, wake) = match job.step().await {
            Ok(again) => {
                failures = 0;
                let pause = match again {
                    Again::Now => Duration::ZERO,
                    Again::After(pause) => pause,
                    Again::Later => job.interval(),
                };
                (pause, job.wake())
            }
            Err(error) => {
                failures += 1;
                counter!(names::JOB_FAILURES, "task" => J::NAME).increment(1);
                let pause = backoff(failures, job.interval());
                tracing::warn!(job = J::NAME, %error, failures, pause_ms = pause.as_millis(), "job failed; it runs again");
                // What is away is not asked more often because there is more to do.
                (pause, None)
            }
        };
        if pause.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = woken(wake) => {}
            () = sleep(pause) => {}
        }
    }
}

async fn woken(wake: Option<&Notify>) {
    match wake {
        Some(wake) => wake.notified().await,
        None => std::future::pending().await,
    }
}

fn backoff(failures: u32, interval: Duration) -> Duration {
    let most = interval.clamp(SHORT_BACKOFF, LONG_BACKOFF);
    FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_errors_double_up_to_a_bound() {
        let often = Duration::from_millis(20);
        let pauses = (1..=7).map(|failures| backoff(failures, often).as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff(u32::MAX, Duration::from_secs(3600)), LONG_BACKOFF);
    }
}
