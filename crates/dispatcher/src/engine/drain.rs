//! Stopping: take nothing new, finish what is out, write, commit, leave.

use std::{sync::Arc, time::Duration};

use signalpost_core::WaitReason;
use signalpost_runtime::Shutdown;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{Engine, shared::Shared};
use crate::{
    DispatcherError,
    job::{Job, Signal},
};

/// How long what is left may take once no request is out: writing, committing, leaving the group.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

impl Engine {
    /// What waits in the queues is not done, so the next owner of its partition reads it again; what is on no partition goes
    /// back to the store. What is out is detached at once and waited for; what is still out at the deadline is left to the
    /// store.
    pub(super) async fn drain(
        mut self,
        shutdown: &Shutdown,
        mut writer_task: JoinHandle<()>,
        heart: &JoinHandle<()>,
    ) -> Result<(), DispatcherError> {
        tracing::info!(in_flight = self.queues.in_flight(), queued = self.claims.len(), "draining");
        self.context.writer.take_over(false);
        self.admission = None;
        self.shared = Shared::default();
        self.telling = None;
        self.refresh = None;
        let pending = std::mem::take(&mut self.pending);
        for job in self.queues.take_everything().into_iter().chain(pending.into_iter().map(|incoming| incoming.job)) {
            self.leave(job);
        }
        self.hand_over();
        self.partitions.detach_all();
        self.leaving.cancel();
        let deadline = Instant::now() + self.settings.drain;
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                () = shutdown.stopped() => break,
                () = sleep_until(deadline) => break,
                Some(signal) = self.signals.recv() => self.last_signal(signal),
                _ended = self.tasks.join_next() => {}
            }
            if self.tasks.is_empty() {
                // What was told last may be more to write.
                while let Ok(signal) = self.signals.try_recv() {
                    self.last_signal(signal);
                }
            }
            self.hand_over();
        }
        let left = self.tasks.len();
        if left > 0 {
            tracing::warn!(requests = left, "requests left behind; the store brings their deliveries back");
        }
        self.tasks.shutdown().await;
        let slots = self.queues.give_slots_back();
        let Self { context, mut signals, mut consumer, mut partitions, claims, limits, owner, .. } = self;
        let store = Arc::clone(&context.store);
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
            match signal {
                Signal::Settled(Job { place: Some(place), .. })
                | Signal::Dropped(Job { place: Some(place), .. })
                | Signal::Detached(place) => partitions.done(place),
                _ => {}
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
        if !slots.is_empty() && limits.slots(owner, &slots).await.is_err() {
            tracing::debug!("slots not given back; they expire");
        }
        // Before the last beat is taken back none may follow.
        heart.abort();
        if !matches!(timeout(FAREWELL, store.farewell(owner)).await, Ok(Ok(()))) {
            tracing::debug!("no farewell; the store forgets us by itself");
        }
        if timeout(LAST_STEPS, consumer.close()).await.is_err() {
            tracing::warn!("the bus did not let go in time");
        }
        tracing::info!("drained");
        Ok(())
    }

    /// Leaves a job to whoever comes next.
    fn leave(&mut self, job: Job) {
        match job.place {
            Some(place) => self.partitions.abandon(place),
            // Nobody reads it again: it would come only when its lease ends.
            None => self.writes.push((job.clone(), job.park(WaitReason::Turn, Duration::ZERO, false))),
        }
    }

    /// As while serving, but nothing is started and nothing goes back to the store that the bus brings again.
    fn last_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Detached(place) => self.partitions.done(place),
            Signal::Settled(job) | Signal::Dropped(job) => self.settled(&job),
            // One that is claimed is the store's, whatever became of its request.
            Signal::Broken(Job { place: Some(place), is_claimed: false, .. }) => self.partitions.abandon(place),
            Signal::Broken(Job { place: Some(place), .. }) => self.partitions.done(place),
            Signal::Followers(followers, lease_end) => {
                for job in followers.into_iter().map(|due| Job::handed_over(due, lease_end, Duration::ZERO)) {
                    self.leave(job);
                }
            }
            Signal::ClaimsReleased => self.claims.is_released(),
            Signal::Broken(_) | Signal::Ended { .. } => {}
        }
    }
}
