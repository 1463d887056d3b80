//! The consumer loop: one task that owns all state and does one thing at a time.
//!
//! It never waits for store, bus or limits: what it asks of them runs beside it, and comes back through the `select!`,
//! whose order is fixed. Before each wait it does what can be done now ([`Engine::advance`]).

mod drain;
mod intake;
mod lanes;
mod refresh;
mod shared;
mod signals;
mod start;

pub(crate) use start::run;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use signalpost_bus::{BusError, Consumer, Delivered};
use signalpost_core::{Clock, DeliveryId, Destination, Timestamp, WaitReason};
use signalpost_limits::{CLAIM_LEASE, Limits, Owner, SLOT_LEASE};
use signalpost_runtime::Shutdown;
use signalpost_store::{Changes, StoreError, dispatch::DeliveryWrite};
use signalpost_telemetry::names;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::{JoinSet, yield_now},
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    DispatcherError, Settings,
    admission::{Admitted, Incoming},
    backoff::Backoff,
    cache::Cache,
    circuits::Circuits,
    claims::Claims,
    engine::shared::{Answer, Shared},
    heartbeat::Alive,
    job::{Job, Signal},
    partitions::Partitions,
    queues::{Parked, Queues},
    request::{self, Context},
    tellings::{Tellings, Told},
};

/// Signals handled at once.
const SIGNALS: usize = 1024;
/// How soon it is looked again at what nothing tells: outcomes written again, room made.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a delivery rests whose task broke.
const AFTER_BREAKAGE: Duration = Duration::from_secs(5);

type Refreshed = (Duration, Result<(Vec<Destination>, Timestamp), StoreError>);

struct Engine {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    limits: Arc<dyn Limits>,
    changes: Changes,
    /// Nobody will tell changes any more.
    changes_ended: bool,
    context: Arc<Context>,
    consumer: Box<dyn Consumer>,
    signals: UnboundedReceiver<Signal>,
    /// Every task that works on a delivery.
    tasks: JoinSet<()>,
    owner: Owner,

    partitions: Partitions,
    queues: Queues,
    cache: Cache,
    claims: Claims,
    circuits: Circuits,
    tellings: Tellings,
    /// What is in the admission that is under way.
    admitting: BTreeSet<DeliveryId>,
    /// Messages of deliveries that are in it, the latest of each: they take the place of one that is dropped there.
    aside: BTreeMap<DeliveryId, Incoming>,
    /// For the next admission, before what the bus brings.
    pending: Vec<Incoming>,
    /// Told when what is on no partition must be detached now.
    leaving: CancellationToken,
    /// Dispatchers alive, as the heart says.
    alive: Alive,
    /// Writes that need no request, handed over at the end of each step.
    writes: Vec<(Job, DeliveryWrite)>,

    admission: Option<BoxFuture<'static, Admitted>>,
    /// What is being asked of the limits.
    shared: Shared,
    telling: Option<BoxFuture<'static, Told>>,
    refresh: Option<BoxFuture<'static, Refreshed>>,
    /// Nothing starts before the refresh that is under way has ended.
    gated: bool,
    since: Timestamp,
    /// How many changes of destinations the cache includes for certain, by the count of `changes`.
    read: u64,
    /// How many it will include when the refresh that is under way has ended.
    reading: u64,
    refresh_at: Duration,
    /// When the latest refresh that succeeded was begun: what the cache is as old as.
    refreshed_at: Duration,
    shed_at: Duration,
    renew_at: Duration,
    renew_slots_at: Duration,
    receive_at: Duration,
    receive_backoff: Backoff,
    wake: Pin<Box<Sleep>>,
    wake_at: Duration,
}

/// What woke the engine.
enum Step {
    Stop,
    Drain,
    Refreshed(Refreshed),
    Answered(Answer),
    Told(Told),
    Admitted(Admitted),
    Received(Result<Vec<Delivered>, BusError>),
    Changed(bool),
    WriterEnded,
    /// Signals, or the alarm: both are seen to at the beginning of the next round.
    Again,
}

/// How serving ended.
enum Ended {
    Drained,
    Stopped,
}

/// Waits for what is there; for ever where nothing is.
async fn pending_or<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Engine {
    async fn serve(
        &mut self,
        shutdown: &Shutdown,
        writer_task: &mut (impl Future + Unpin),
    ) -> Result<Ended, DispatcherError> {
        let mut signals = Vec::with_capacity(SIGNALS);
        loop {
            // Whoever is about to tell something goes first, where there is anybody: one round for all of them, not one for each.
            yield_now().await;
            // All that is there, before anything else, but without keeping the rest of the loop waiting.
            let now = self.clock.elapsed();
            for signal in signals.drain(..) {
                self.signal(signal, now);
            }
            for _ in 0..SIGNALS {
                let Ok(signal) = self.signals.try_recv() else { break };
                self.signal(signal, now);
            }
            self.advance();
            self.set_wake();
            let receiving = self.may_receive(self.clock.elapsed());
            let most = self.settings.receive_batch.min(self.queues.room()).max(1);
            let step = tokio::select! {
                biased;
                () = shutdown.stopped() => Step::Stop,
                () = shutdown.draining() => Step::Drain,
                _ = &mut *writer_task => Step::WriterEnded,
                refreshed = pending_or(&mut self.refresh) => Step::Refreshed(refreshed),
                answer = self.shared.answer() => Step::Answered(answer),
                told = pending_or(&mut self.telling) => Step::Told(told),
                admitted = pending_or(&mut self.admission) => Step::Admitted(admitted),
                changed = self.changes.changed(), if !self.changes_ended && self.refresh.is_none() => {
                    Step::Changed(changed.is_ok())
                }
                received = self.consumer.receive(most), if receiving => Step::Received(received),
                _ = self.signals.recv_many(&mut signals, SIGNALS) => Step::Again,
                () = &mut self.wake => Step::Again,
            };
            let now = self.clock.elapsed();
            match step {
                Step::Stop => return Ok(Ended::Stopped),
                Step::Drain => return Ok(Ended::Drained),
                Step::WriterEnded => return Err(DispatcherError::WriterEnded),
                Step::Refreshed(refreshed) => self.refreshed(refreshed, now),
                Step::Answered(answer) => self.answered(answer, now),
                Step::Told(told) => {
                    self.telling = None;
                    self.tellings.told(told, now);
                }
                Step::Admitted(admitted) => self.admitted(admitted, now),
                Step::Received(received) => self.received(received, now).await?,
                // `changed` has marked it as seen, so the refresh is begun here.
                Step::Changed(true) => self.begin_refresh(true),
                Step::Changed(false) => self.changes_ended = true,
                Step::Again => {}
            }
        }
    }

    /// Does what can be done without waiting.
    fn advance(&mut self) {
        let now = self.clock.elapsed();
        while self.tasks.try_join_next().is_some() {}
        self.look_for_changes(now);
        self.look_at_the_clock(now);
        if self.may_start(now) {
            while let Some(job) = self.queues.next(now) {
                self.start(job, now);
            }
            self.ask_for_tokens();
            self.ask_for_slots(now);
        }
        self.report_circuits(now);
        if self.telling.is_none() {
            self.telling = self.tellings.tell(&self.context.store, &self.clock, now);
        }
        self.begin_admission(Vec::new());
        let is_free = !self.queues.is_full() && !self.queues.is_congested(now);
        self.context.writer.take_over(is_free && self.may_start(now));
        self.hand_over();
        for place in self.partitions.commits() {
            self.consumer.commit(place);
        }
        for partitions in self.partitions.released(now) {
            self.consumer.released(&partitions);
        }
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!(names::IN_FLIGHT).set(self.queues.in_flight() as f64);
    }

    /// Nothing starts while a change may be unknown to us (a change holds for every request that starts after its
    /// answer; who is cut off from the store hears of none), nor while outcomes pile up.
    fn may_start(&self, now: Duration) -> bool {
        !self.gated
            && now.saturating_sub(self.refreshed_at) < self.settings.poll * refresh::MISSED_POLLS
            && !self.changes.has_changed().unwrap_or(false)
            && !self.context.writer.is_behind(self.settings.max_unwritten)
    }

    fn may_receive(&self, now: Duration) -> bool {
        self.admission.is_none()
            && !self.queues.is_full()
            && !self.queues.is_congested(now)
            && now >= self.receive_at
            && self.partitions.gap() < self.settings.max_gap
            && self.claims.len() < self.settings.max_queued + self.settings.max_in_flight
    }

    /// Starts the request of a job that has its slot.
    fn start(&mut self, job: Job, now: Duration) {
        let id = job.message.destination_id;
        let destination = self.cache.get(id).filter(|_| !job.is_too_late(now));
        if let Some(destination) = destination {
            if job.is_probe {
                self.circuits.probing(id);
            }
            let detach = match job.place {
                Some(place) => self.partitions.detach(place),
                None => self.leaving.clone(),
            };
            let start = request::Start { job, destination, changes: self.read, detach, at: now };
            // On the heap, as it is some KiB, and a task moves what it runs several times.
            self.tasks.spawn(Box::pin(request::run(Arc::clone(&self.context), start)));
            return;
        }
        self.queues.ended(id, now);
        if job.is_probe {
            self.circuits.void(id);
        }
        if job.is_too_late(now) {
            metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "lease").increment(1);
            self.settled(&job);
        } else {
            self.park(job, WaitReason::Turn, Duration::ZERO, false);
        }
    }

    /// What is due by time.
    fn look_at_the_clock(&mut self, now: Duration) {
        let keep = !self.may_start(now);
        if self.queues.next_timer().is_some_and(|at| at <= now) {
            let parked = self.queues.overdue(now, keep);
            self.park_all(parked);
        }
        if (self.queues.is_full() || self.queues.is_congested(now)) && !keep && now >= self.shed_at {
            self.shed_at = now + LOOK_AGAIN;
            let parked = self.queues.shed(now);
            self.park_all(parked);
        }
        if now >= self.renew_at {
            self.renew_at = now + CLAIM_LEASE / 3;
            self.renew();
        }
        if now >= self.renew_slots_at {
            self.renew_slots_at = now + SLOT_LEASE / 3;
            self.queues.renew_slots();
        }
    }

    fn renew(&mut self) {
        let claims = self.claims.all();
        if !claims.is_empty() {
            let (limits, owner) = (Arc::clone(&self.limits), self.owner);
            self.tasks.spawn(async move {
                if let Err(error) = limits.renew(owner, &claims).await {
                    metrics::counter!(names::LIMITS_UNAVAILABLE).increment(1);
                    tracing::debug!(error = %error, "claims not renewed");
                }
            });
        }
    }

    fn park_all(&mut self, parked: Vec<Parked>) {
        for Parked { job, reason, after } in parked {
            self.park(job, reason, after, true);
        }
    }

    fn park(&mut self, job: Job, reason: WaitReason, after: Duration, hold_queue: bool) {
        let write = job.park(reason, after, hold_queue);
        self.put_back(job, write);
    }

    /// Settles a job without a request.
    fn put_back(&mut self, job: Job, write: DeliveryWrite) {
        if let DeliveryWrite::Park { reason, .. } = &write
            && *reason != WaitReason::Turn
        {
            metrics::counter!(names::THROTTLED, "reason" => reason.as_str()).increment(1);
        }
        // It may come back before we are told that it is written.
        self.claims.let_go(&job);
        self.writes.push((job, write));
    }

    /// Hands writes and claims to tasks.
    fn hand_over(&mut self) {
        if !self.writes.is_empty() {
            let writes = std::mem::take(&mut self.writes);
            self.tasks.spawn(request::settle(Arc::clone(&self.context), writes));
        }
        if let Some(claims) = self.claims.next_release() {
            let (limits, owner, signals) = (Arc::clone(&self.limits), self.owner, self.context.signals.clone());
            self.tasks.spawn(async move {
                // They expire by themselves.
                if limits.release(owner, &claims).await.is_err() {
                    metrics::counter!(names::LIMITS_UNAVAILABLE).increment(1);
                }
                let _gone = signals.send(Signal::ClaimsReleased);
            });
        }
    }

    /// Sets the alarm to the next moment at which something is to be done that nothing tells.
    fn set_wake(&mut self) {
        let now = self.clock.elapsed();
        let mut at = self.renew_at;
        let mut sooner = |moment: Option<Duration>| at = moment.map_or(at, |moment| at.min(moment));
        sooner(self.queues.next_timer());
        sooner(self.partitions.next_deadline());
        sooner(self.refresh.is_none().then_some(self.refresh_at));
        sooner((self.receive_at > now).then_some(self.receive_at));
        sooner(self.queues.has_slots().then_some(self.renew_slots_at));
        sooner(self.circuits.next_report().filter(|_| !self.shared.is_reporting()));
        sooner(self.tellings.next().filter(|_| self.telling.is_none()));
        let stuck = self.queues.is_full()
            || self.queues.is_congested(now)
            || self.context.writer.is_behind(self.settings.max_unwritten);
        sooner(stuck.then_some(now + LOOK_AGAIN));
        let at = at.max(now);
        if at != self.wake_at || self.wake.is_elapsed() {
            self.wake_at = at;
            self.wake.as_mut().reset(Instant::now() + (at - now));
        }
    }
}
