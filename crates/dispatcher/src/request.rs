//! The task of one request: payload, claim, exchange, verdict, outcome.
//!
//! A request that is still out after a second, or whose partition goes to somebody else, is detached: the store notes
//! the attempt and when it must have ended, the offset is released, the request goes on. If the process dies before the
//! outcome is written, the store brings the delivery back, and the attempt is recorded as interrupted.
//!
//! At most once, that is noted before the first byte leaves, as a claim that nobody else can make.
//!
//! In a lane, a request begins only while the delivery's lease lasts, and is given up where the lease ends before it is
//! detached: so it is never out while somebody else may begin it.

mod exchange;
mod outcome;
mod prepare;
mod tell;

use std::{sync::Arc, time::Duration};

use signalpost_core::{Clock, DeadReason, Destination, Entropy, WaitReason};
use signalpost_limits::Limits;
use signalpost_runtime::Rejected;
use signalpost_store::{
    Changes, DispatchStore,
    dispatch::{DeliveryWrite, Written},
};
use signalpost_telemetry::names;
use tokio::{sync::mpsc::UnboundedSender, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub(crate) use self::tell::Meters;
use self::{exchange::Exchanged, outcome::Sending, prepare::Prepared};
use crate::{
    Exchanger, Settings,
    job::{Ending, Hold, Job, Signal},
    payloads::{Found, Payloads},
    queues::OpenCircuits,
    writer::Writer,
};

/// What every task works with.
pub(crate) struct Context {
    pub store: Arc<dyn DispatchStore>,
    pub limits: Arc<dyn Limits>,
    pub exchanger: Arc<dyn Exchanger>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub settings: Arc<Settings>,
    pub writer: Writer,
    pub payloads: Payloads,
    pub signals: UnboundedSender<Signal>,
    /// Only looked at, never marked as seen.
    pub changes: Changes,
    /// Of destinations whose jobs may have been started before.
    pub open_circuits: OpenCircuits,
    pub meters: Meters,
}

/// A job that may start, and what is known of its destination at that moment.
pub(crate) struct Start {
    pub job: Job,
    pub destination: Arc<Destination>,
    /// The number of changes of destinations that `destination` is known to include.
    pub changes: u64,
    /// Told when the request must be detached at once.
    pub detach: CancellationToken,
    /// When it took its token, where there is a rate limit; by the process's clock.
    pub at: Duration,
}

/// What became of a job.
enum Done {
    /// What came of it is written.
    Settled,
    /// Nothing is, and nothing is to be: the store brings it back.
    Dropped,
}

/// Makes one request and sees to it that what came of it is written. Where that breaks off, dropping the hold on the job
/// tells the engine.
pub(crate) async fn run(context: Arc<Context>, start: Start) {
    let message = &start.job.message;
    let span = tracing::debug_span!(
        "delivery",
        delivery.id = %message.delivery_id,
        destination.id = %message.destination_id,
        event.id = %message.event.id,
        attempt = message.attempt,
    );
    let mut hold = Hold::new(start.job.clone(), context.signals.clone());
    match attempt(&context, start, &mut hold).instrument(span).await {
        Ok(Done::Settled) => hold.settled(),
        Ok(Done::Dropped) => hold.dropped(),
        Err(Rejected::Full | Rejected::Stopped) => {}
    }
}

async fn attempt(context: &Context, start: Start, hold: &mut Hold) -> Result<Done, Rejected> {
    let (job, detach) = (start.job.clone(), start.detach.clone());
    let target = job.target();
    let patience = async {
        tokio::select! {
            () = detach.cancelled() => {}
            () = sleep(context.settings.detach_after) => {}
        }
    };
    let event = match context.payloads.event(&job.message, patience).await? {
        Found::Event(event) => event,
        Found::Gone => {
            // Retention dropped the event: it is far too old to be sent.
            tracing::warn!(delivery.id = %target.delivery_id, event.id = %target.event_id, "the event is gone");
            hold.ended(Ending::NOTHING);
            context.writer.write(DeliveryWrite::End { target, dead: Some(DeadReason::Expired) }).await?;
            return Ok(Done::Settled);
        }
        Found::NoRoom => {
            hold.ended(Ending::NOTHING);
            metrics::counter!(names::THROTTLED, "reason" => "memory").increment(1);
            // One that leaves is waited for by whoever comes next.
            let after = if detach.is_cancelled() { Duration::ZERO } else { context.settings.park };
            let park = job.park(WaitReason::Turn, after, false);
            context.writer.write_until(park, job.write_until()).await?;
            return Ok(Done::Settled);
        }
    };
    let destination = match prepare::prepare(context, start, hold).await? {
        Prepared::Ready(destination) => destination,
        Prepared::Instead(write) => {
            drop(event);
            hold.ended(Ending::NOTHING);
            // One that is claimed is nobody else's, and is lost where its claim is not given back.
            let is_claimed = matches!(write, DeliveryWrite::Park { claim: Some(_), .. });
            context.writer.write_until(write, job.write_until().filter(|_| !is_claimed)).await?;
            return Ok(Done::Settled);
        }
        Prepared::Dropped(reason) => {
            metrics::counter!(names::SUSPECTS_DROPPED, "reason" => reason).increment(1);
            tracing::debug!(delivery.id = %target.delivery_id, reason, "not sent");
            return Ok(Done::Dropped);
        }
    };
    let sending = Sending::begin(context, job, destination);
    let outgoing = sending.outgoing(&event);
    let exchanged =
        exchange::exchange(context, &sending.job, &outgoing, &detach).instrument(sending.span.clone()).await?;
    // Its memory is for others, while what came of it is written.
    drop(event);
    match exchanged {
        Exchanged::Ended(exchange) => {
            hold.ended(outcome::ending(&exchange));
            outcome::write(context, sending, &exchange).await?;
        }
        Exchanged::GivenUp(duration) => {
            hold.ended(Ending::NOTHING);
            outcome::write_given_up(context, sending, duration).await?;
        }
    }
    Ok(Done::Settled)
}

/// Writes what needs no request, and tells when it is written.
pub(crate) async fn settle(context: Arc<Context>, writes: Vec<(Job, DeliveryWrite)>) {
    let settling = writes.into_iter().map(|(job, write)| {
        let context = &context;
        let until = if let DeliveryWrite::Park { .. } = write { job.write_until() } else { None };
        let hold = Hold::without_slot(job, context.signals.clone());
        async move {
            let dead = if let DeliveryWrite::End { dead, .. } = &write { *dead } else { None };
            // Dropping the hold tells that it is not written.
            let Ok(written) = context.writer.write_until(write, until).await else { return };
            if let Some(reason) = dead.filter(|_| written == Some(Written::Done)) {
                metrics::counter!(names::DEAD, "reason" => reason.as_str()).increment(1);
            }
            hold.settled();
        }
    });
    futures::future::join_all(settling).await;
}
