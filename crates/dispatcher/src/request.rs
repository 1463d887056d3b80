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
mod prepare;
mod tell;

use std::{sync::Arc, time::Duration};

use signalpost_bus::Message;
use signalpost_core::{
    AttemptOutcome, Clock, DeadReason, Destination, Entropy, Guarantee, WaitReason,
    classify::{Answer, Verdict, judge},
};
use signalpost_limits::Limits;
use signalpost_runtime::Rejected;
use signalpost_sender::{Exchange, Outgoing};
use signalpost_store::{
    Changes, DispatchStore,
    dispatch::{Attempt, DeliveryWrite, Next, Written},
};
use signalpost_telemetry::{TraceContext, names, trace};
use tokio::{sync::mpsc::UnboundedSender, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

pub(crate) use self::tell::Meters;
use self::{exchange::Exchanged, prepare::Prepared};
use crate::{
    Exchanger, Settings,
    backoff::Backoff,
    job::{Ending, Health, Hold, Job, Signal},
    payloads::{Found, Payloads},
    queues::OpenCircuits,
    writer::Writer,
};

/// How long a delivery rests whose outcome the store refuses: a bug, which is to be seen and not to be repeated at once.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// What is noted of a request that was given up.
const GIVEN_UP: &str = "this request was given up: its place in the order could not be kept any longer";

/// How long after a request was given up that may still be written.
const LAST_WORDS: Duration = Duration::from_millis(250);

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
    let is_once = job.message.guarantee == Guarantee::AtMostOnce;
    let started_at = context.clock.now();
    let number = job.message.attempt;
    let span = exported(&job.message);
    let traceparent = trace::current(&span).map(|context| context.to_string());
    let outgoing = Outgoing {
        destination: &destination,
        event: &event,
        delivery_id: target.delivery_id,
        attempt: number,
        at: started_at,
        traceparent: traceparent.as_deref(),
    };
    let exchange = match exchange::exchange(context, &job, &outgoing, &detach).instrument(span.clone()).await? {
        Exchanged::Ended(exchange) => exchange,
        Exchanged::GivenUp(duration) => {
            drop(event);
            hold.ended(Ending::NOTHING);
            trace::failed(&span, GIVEN_UP);
            drop(span);
            let attempt = given_up(number, started_at, duration);
            let next = Next::Retry { after: Duration::ZERO };
            // Not later: then it is somebody else's, and this attempt one of those that nobody saw the end of.
            let until = job.give_up_at().map(|at| at + LAST_WORDS);
            context.writer.write_until(DeliveryWrite::Attempt { target, attempt, next }, until).await?;
            return Ok(Done::Settled);
        }
    };
    // Its memory is for others, while what came of it is written.
    drop(event);
    hold.ended(Ending { health: health(&exchange), slow_for: slow_for(exchange.answer) });
    if let Some(code) = exchange.status_code {
        trace::status(&span, code);
    }

    let age = context.clock.now().since(job.message.born_at());
    let max_age = context.settings.max_age;
    let verdict = judge(exchange.answer, &destination.spec.retry, number, age, max_age, &*context.entropy)
        .under(job.message.guarantee);
    if verdict != Verdict::Delivered {
        trace::failed(&span, exchange.error.as_deref().unwrap_or("not delivered"));
    }
    drop(span);
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
    let write = DeliveryWrite::Attempt { target, attempt, next };
    let written = match job.message.lane {
        Some(_) => context.writer.write_now(write).await?,
        None => context.writer.write(write).await?,
    };
    if written.is_none() && !is_once {
        // Nobody else might bring it back: on a bus in memory, what is queued and done is looked for only at a start.
        let park = job.park(WaitReason::Turn, AFTER_REFUSAL, false);
        context.writer.write_until(park, job.write_until()).await?;
    }
    tell::tell(context, &job, &destination, &exchange, verdict, written);
    if let Verdict::Dead { disable_destination: true, .. } = verdict {
        disable(context, &destination).await;
    }
    Ok(Done::Settled)
}

/// The span of a request, from the moment when it may begin to its end: below that of the producer's request.
fn exported(message: &Message) -> Span {
    let span = tracing::debug_span!(
        trace::ATTEMPT,
        otel.kind = "client",
        delivery.id = %message.delivery_id,
        destination.id = %message.destination_id,
        event.id = %message.event.id,
        attempt = message.attempt,
    );
    if let Some(parent) = message.event.meta.traceparent.as_deref().and_then(TraceContext::parse) {
        trace::link(&span, parent);
    }
    span
}

/// An attempt whose end nobody waited for.
fn given_up(number: u32, started_at: signalpost_core::Timestamp, duration: Duration) -> Attempt {
    Attempt {
        number,
        started_at,
        duration,
        outcome: AttemptOutcome::Interrupted,
        status_code: None,
        response_excerpt: Default::default(),
        error: Some(GIVEN_UP.to_owned()),
    }
}

/// What an answer tells of the destination: that it works is told by every answer but 5xx, and by 429 neither.
fn health(exchange: &Exchange) -> Health {
    match exchange.answer {
        Answer::Status { code: 429, .. } | Answer::EgressDenied => Health::Nothing,
        Answer::Status { code: 200..=299, .. } => Health::Success,
        Answer::Status { code: ..500, .. } => Health::Refusal,
        Answer::Status { code, .. } => Health::Failure(code.to_string()),
        Answer::Unreachable => Health::Failure(exchange.error.clone().unwrap_or_else(|| "no answer".to_owned())),
    }
}

/// How long the destination asked to be left alone.
const fn slow_for(answer: Answer) -> Option<Duration> {
    match answer {
        Answer::Status { code: 429 | 503, retry_after } => retry_after,
        _ => None,
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
