//! Stopping: take nothing new, finish what is out, write, commit, leave.

use std::time::Duration;

use signalpost_runtime::Shutdown;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::Engine;
use crate::{DispatcherError, job::Signal};

/// How long what is left may take once no request is out: writing, committing, leaving the group.
const LAST_STEPS: Duration = Duration::from_secs(5);

impl Engine {
    /// What waits in the queues is not done, so the next owner of its partition reads it again. What is out is detached at
    /// once and waited for; what is still out at the deadline is left to the store.
    pub(super) async fn drain(
        mut self,
        shutdown: &Shutdown,
        mut writer_task: JoinHandle<()>,
    ) -> Result<(), DispatcherError> {
        tracing::info!(in_flight = self.queues.in_flight(), queued = self.claims.len(), "draining");
        self.admission = None;
        self.tokens = None;
        self.refresh = None;
        for job in self.queues.take_everything() {
            self.partitions.abandon(job.place);
        }
        self.hand_over();
        self.partitions.detach_all();
        let deadline = Instant::now() + self.settings.drain;
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                () = shutdown.stopped() => break,
                () = sleep_until(deadline) => break,
                Some(signal) = self.signals.recv() => self.last_signal(signal),
                _ended = self.tasks.join_next() => {}
            }
        }
        let left = self.tasks.len();
        if left > 0 {
            tracing::warn!(requests = left, "requests left behind; the store brings their deliveries back");
        }
        self.tasks.shutdown().await;
        let Self { context, mut signals, mut consumer, mut partitions, claims, limits, owner, .. } = self;
        // The last handle of the writer goes with it; it writes what it has and ends.
        drop(context);
        tokio::select! {
            biased;
            () = shutdown.stopped() => {}
            ended = timeout(LAST_STEPS, &mut writer_task) => {
                if ended.is_err() {
                    tracing::warn!("outcomes left unwritten; their deliveries are sent again");
                }
            }
        }
        writer_task.abort();
        while let Ok(signal) = signals.try_recv() {
            if let Signal::Settled(job) = signal {
                partitions.done(job.place);
            } else if let Signal::Detached(place) = signal {
                partitions.done(place);
            }
        }
        for place in partitions.commits() {
            consumer.commit(place);
        }
        // So that a successor need not wait until they expire.
        let claims = claims.into_all();
        if !claims.is_empty() && limits.release(owner, &claims).await.is_err() {
            tracing::debug!("claims not given back; they expire");
        }
        if timeout(LAST_STEPS, consumer.close()).await.is_err() {
            tracing::warn!("the bus did not let go in time");
        }
        tracing::info!("drained");
        Ok(())
    }

    /// As while serving, but nothing is started and nothing goes back to the store that the bus brings again.
    fn last_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Detached(place) => self.partitions.done(place),
            Signal::Settled(job) => self.partitions.done(job.place),
            Signal::Broken(job) => self.partitions.abandon(job.place),
            Signal::Ended { .. } | Signal::ClaimsReleased => {}
        }
    }
}
