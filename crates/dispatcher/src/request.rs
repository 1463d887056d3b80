//! The task of one request: payload, exchange, verdict, outcome.
//!
//! A request that is still out after a second, or whose partition goes to somebody else, is detached: the store notes
//! the attempt and when it must have ended, the offset is released, the request goes on. If the process dies before the
//! outcome is written, the store brings the delivery back, and the attempt is recorded as interrupted.

use std::{sync::Arc, time::Duration};

use signalpost_core::{
    Clock, DeadReason, Destination, DestinationState, Entropy, WaitReason,
    classify::{Answer, Verdict, judge},
};
use signalpost_runtime::Rejected;
use signalpost_sender::{Exchange, Outgoing};
use signalpost_store::{
    Changes, DispatchStore,
    dispatch::{Attempt, DeliveryWrite, Next, Written},
};
use signalpost_telemetry::names;
use tokio::{sync::mpsc::UnboundedSender, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    Exchanger, Settings,
    backoff::Backoff,
    job::{Hold, Job, Signal},
    observer::AttemptReport,
    payloads::Payloads,
    writer::Writer,
};

/// How long a delivery rests whose outcome the store refuses: a bug, which is to be seen and not to be repeated at once.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// What every task works with.
pub(crate) struct Context {
    pub store: Arc<dyn DispatchStore>,
    pub exchanger: Arc<dyn Exchanger>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub settings: Arc<Settings>,
    pub writer: Writer,
    pub payloads: Payloads,
    pub signals: UnboundedSender<Signal>,
    /// Only looked at, never marked as seen.
    pub changes: Changes,
}

/// A job that may start, and what is known of its destination at that moment.
pub(crate) struct Start {
    pub job: Job,
    pub destination: Arc<Destination>,
    /// The number of changes of destinations that `destination` is known to include.
    pub changes: u64,
    /// Told when the request must be detached at once.
    pub detach: CancellationToken,
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
    if attempt(&context, start, &mut hold).instrument(span).await.is_ok() {
        hold.settled();
    }
}

async fn attempt(context: &Context, start: Start, hold: &mut Hold) -> Result<(), Rejected> {
    let Start { job, destination, changes, detach } = start;
    let target = job.target();
    let Some(event) = context.payloads.event(&job.message).await? else {
        // Retention dropped the event: it is far too old to be sent.
        tracing::warn!(delivery.id = %target.delivery_id, event.id = %target.event_id, "the event is gone");
        hold.ended(None);
        context.writer.write(DeliveryWrite::End { target, dead: Some(DeadReason::Expired) }).await?;
        return Ok(());
    };
    // A change holds for every request that starts after its answer, so also for one that waited for its payload.
    let is_current = *context.changes.borrow() == changes;
    let destination = if is_current { destination } else { reload(context, &destination).await };
    if destination.state != DestinationState::Active {
        hold.ended(None);
        context.writer.write(job.turn_away(destination.state)).await?;
        return Ok(());
    }
    let started_at = context.clock.now();
    let number = job.message.attempt;
    let outgoing = Outgoing {
        destination: &destination,
        event: &event,
        delivery_id: target.delivery_id,
        attempt: number,
        at: started_at,
    };
    let exchange = exchange(context, &job, &outgoing, &detach).await?;
    hold.ended(slow_for(exchange.answer));

    let age = context.clock.now().since(job.message.born_at());
    let max_age = context.settings.max_age;
    let verdict = judge(exchange.answer, &destination.spec.retry, number, age, max_age, &*context.entropy)
        .under(job.message.guarantee);
    let next = match verdict {
        Verdict::Delivered => Next::Delivered,
        Verdict::Retry { after } => Next::Retry { after },
        Verdict::Dead { reason, .. } => Next::Dead { reason },
    };
    let attempt = Attempt {
        number,
        started_at,
        duration: exchange.duration,
        outcome: verdict.outcome(),
        status_code: exchange.status_code,
        response_excerpt: exchange.response_excerpt.clone(),
        error: exchange.error.clone(),
    };
    let written = context.writer.write(DeliveryWrite::Attempt { target, attempt, next }).await?;
    if written.is_none() {
        // Nobody else might bring it back: on a bus in memory, what is queued and done is looked for only at a start.
        context.writer.write(job.park(WaitReason::Turn, AFTER_REFUSAL, false)).await?;
    }
    tell(context, &job, &destination, &exchange, verdict, written);
    if let Verdict::Dead { disable_destination: true, .. } = verdict {
        disable(context, &destination).await;
    }
    Ok(())
}

/// The destination as it is now: something has changed since its job was started. One that is gone is as one deleted.
async fn reload(context: &Context, known: &Destination) -> Arc<Destination> {
    let mut backoff = Backoff::new();
    loop {
        match context.store.destinations(&[known.id]).await {
            Ok(mut found) => {
                let gone = || Destination { state: DestinationState::Deleted, ..known.clone() };
                return Arc::new(found.pop().unwrap_or_else(gone));
            }
            Err(error) => tracing::warn!(error = %error, "a destination was not loaded; trying again"),
        }
        backoff.wait().await;
    }
}

/// The exchange, and beside it the detaching where it takes long.
async fn exchange(
    context: &Context,
    job: &Job,
    outgoing: &Outgoing<'_>,
    detach: &CancellationToken,
) -> Result<Exchange, Rejected> {
    let mut exchange = context.exchanger.exchange(outgoing);
    let wait = context.settings.detach_after;
    tokio::select! {
        biased;
        exchange = &mut exchange => return Ok(exchange),
        () = sleep(wait) => {}
        () = detach.cancelled() => {}
    }
    // From now: at most the whole time-out is left, and whoever is late by less than the grace is still believed.
    let deadline = outgoing.destination.spec.timeout() + context.settings.detach_grace;
    let detaching = async {
        let target = job.target();
        context.writer.write(DeliveryWrite::Detach { target, attempt: outgoing.attempt, deadline }).await?;
        metrics::counter!(names::DETACHED).increment(1);
        let _gone = context.signals.send(Signal::Detached(job.place));
        Ok(())
    };
    // The outcome must not be written before the detaching is: so both are waited for.
    let (exchange, detached) = futures::future::join(exchange, detaching).await;
    detached.map(|()| exchange)
}

/// How long the destination asked to be left alone.
const fn slow_for(answer: Answer) -> Option<Duration> {
    match answer {
        Answer::Status { code: 429 | 503, retry_after } => retry_after,
        _ => None,
    }
}

/// Metrics, log, observer.
fn tell(
    context: &Context,
    job: &Job,
    destination: &Destination,
    exchange: &Exchange,
    verdict: Verdict,
    written: Option<Written>,
) {
    let message = &job.message;
    metrics::counter!(names::ATTEMPTS, "outcome" => verdict.outcome().as_str()).increment(1);
    metrics::histogram!(names::ATTEMPT_SECONDS).record(exchange.duration.as_secs_f64());
    if written != Some(Written::Done) {
        tracing::info!(delivery.id = %message.delivery_id, attempt = message.attempt, "outcome superseded");
        return;
    }
    let next_in = match verdict {
        Verdict::Delivered => {
            metrics::counter!(names::DELIVERED).increment(1);
            let age = context.clock.now().since(message.event.created_at());
            metrics::histogram!(names::DELIVERY_SECONDS).record(age.as_secs_f64());
            None
        }
        Verdict::Retry { after } => {
            metrics::counter!(names::RETRIED).increment(1);
            Some(after)
        }
        Verdict::Dead { reason, .. } => {
            metrics::counter!(names::DEAD, "reason" => reason.as_str()).increment(1);
            None
        }
    };
    tracing::debug!(
        delivery.id = %message.delivery_id,
        destination.id = %destination.id,
        event.id = %message.event.id,
        attempt = message.attempt,
        outcome = verdict.outcome().as_str(),
        status_code = exchange.status_code,
        error = exchange.error.as_deref(),
        duration_ms = exchange.duration.as_millis(),
        next_in_ms = next_in.map(|next| next.as_millis()),
        "attempt"
    );
    if let Some(observer) = &context.settings.observer {
        observer.attempted(&AttemptReport {
            event_type: message.event.event_type.clone(),
            delivery_id: message.delivery_id,
            destination_id: destination.id,
            destination_name: destination.spec.name.clone(),
            attempt: message.attempt,
            max_attempts: destination.spec.retry.max_attempts(),
            outcome: verdict.outcome(),
            status_code: exchange.status_code,
            error: exchange.error.clone(),
            duration: exchange.duration,
            next_in,
        });
    }
}

/// Disables a destination that answered 410. Given up after a few tries: the next delivery meets the next 410.
async fn disable(context: &Context, destination: &Destination) {
    let mut backoff = Backoff::new();
    for _ in 0..5 {
        match context.store.disable_destination(destination.tenant_id, destination.id, "it answered 410 Gone").await {
            Ok(()) => {
                tracing::warn!(destination.id = %destination.id, "destination disabled: it answered 410 Gone");
                return;
            }
            Err(error) => tracing::warn!(error = %error, destination.id = %destination.id, "destination not disabled"),
        }
        backoff.wait().await;
    }
}

/// Writes what needs no request, and tells when it is written.
pub(crate) async fn settle(context: Arc<Context>, writes: Vec<(Job, DeliveryWrite)>) {
    let settling = writes.into_iter().map(|(job, write)| {
        let context = &context;
        let hold = Hold::without_slot(job, context.signals.clone());
        async move {
            let dead = if let DeliveryWrite::End { dead, .. } = &write { *dead } else { None };
            // Dropping the hold tells that it is not written.
            let Ok(written) = context.writer.write(write).await else { return };
            if let Some(reason) = dead.filter(|_| written == Some(Written::Done)) {
                metrics::counter!(names::DEAD, "reason" => reason.as_str()).increment(1);
            }
            hold.settled();
        }
    });
    futures::future::join_all(settling).await;
}
