//! What came of a request: its verdict, what is written of it, and what it tells of its destination.

use std::{sync::Arc, time::Duration};

use signalpost_bus::Message;
use signalpost_core::{
    AttemptOutcome, Destination, Event, Guarantee, Timestamp, WaitReason,
    classify::{Answer, Verdict, judge},
};
use signalpost_runtime::Rejected;
use signalpost_sender::{Exchange, Outgoing};
use signalpost_store::dispatch::{Attempt, DeliveryWrite, Next};
use signalpost_telemetry::{TraceContext, trace};
use tracing::Span;

use super::{Context, tell};
use crate::{
    backoff::Backoff,
    job::{Ending, Health, Job},
};

/// How long a delivery rests whose outcome the store refuses: a bug, which is to be seen and not to be repeated at once.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// What is noted of a request that was given up.
const GIVEN_UP: &str = "this request was given up: its place in the order could not be kept any longer";

/// How long after a request was given up that may still be written.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// A request from the moment when it may begin.
pub(super) struct Sending {
    pub(super) job: Job,
    destination: Arc<Destination>,
    started_at: Timestamp,
    /// Below that of the producer's request. Ends with this.
    pub(super) span: Span,
    traceparent: Option<String>,
}

impl Sending {
    pub(super) fn begin(context: &Context, job: Job, destination: Arc<Destination>) -> Self {
        let span = exported(&job.message);
        let traceparent = trace::current(&span).map(|context| context.to_string());
        Self { job, destination, started_at: context.clock.now(), span, traceparent }
    }

    pub(super) fn outgoing<'a>(&'a self, event: &'a Event) -> Outgoing<'a> {
        Outgoing {
            destination: &self.destination,
            event,
            delivery_id: self.job.message.delivery_id,
            attempt: self.job.message.attempt,
            at: self.started_at,
            traceparent: self.traceparent.as_deref(),
        }
    }
}

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

/// Judges an answer, or its lack, and writes what follows of it; then tells those who are to know.
pub(super) async fn write(context: &Context, sending: Sending, exchange: &Exchange) -> Result<(), Rejected> {
    let Sending { job, destination, started_at, span, .. } = sending;
    let number = job.message.attempt;
    let age = context.clock.now().since(job.message.born_at());
    let max_age = context.settings.max_age;
    let verdict = judge(exchange.answer, &destination.spec.retry, number, age, max_age, &*context.entropy)
        .under(job.message.guarantee);
    end_span(span, exchange, verdict);
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
    let write = DeliveryWrite::Attempt { target: job.target(), attempt, next };
    let written = match job.message.lane {
        Some(_) => context.writer.write_now(write).await?,
        None => context.writer.write(write).await?,
    };
    if written.is_none() && job.message.guarantee != Guarantee::AtMostOnce {
        // Nobody else might bring it back: on a bus in memory, what is queued and done is looked for only at a start.
        let park = job.park(WaitReason::Turn, AFTER_REFUSAL, false);
        context.writer.write_until(park, job.write_until()).await?;
    }
    tell::tell(context, &job, &destination, exchange, verdict, written);
    if let Verdict::Dead { disable_destination: true, .. } = verdict {
        disable(context, &destination).await;
    }
    Ok(())
}

/// Writes that nobody waited for the end of a request: the next attempt is to begin at once.
pub(super) async fn write_given_up(context: &Context, sending: Sending, duration: Duration) -> Result<(), Rejected> {
    let Sending { job, started_at, span, .. } = sending;
    trace::failed(&span, GIVEN_UP);
    drop(span);
    let attempt = Attempt {
        number: job.message.attempt,
        started_at,
        duration,
        outcome: AttemptOutcome::Interrupted,
        status_code: None,
        response_excerpt: Default::default(),
        error: Some(GIVEN_UP.to_owned()),
    };
    let next = Next::Retry { after: Duration::ZERO };
    // Not later: then it is somebody else's, and this attempt one of those that nobody saw the end of.
    let until = job.give_up_at().map(|at| at + LAST_WORDS);
    context.writer.write_until(DeliveryWrite::Attempt { target: job.target(), attempt, next }, until).await?;
    Ok(())
}

/// The span is that of the request alone, without the writing.
fn end_span(span: Span, exchange: &Exchange, verdict: Verdict) {
    if let Some(code) = exchange.status_code {
        trace::status(&span, code);
    }
    if verdict != Verdict::Delivered {
        trace::failed(&span, exchange.error.as_deref().unwrap_or("not delivered"));
    }
}

/// What the end of a request tells of its destination.
pub(super) fn ending(exchange: &Exchange) -> Ending {
    Ending { health: health(exchange), slow_for: slow_for(exchange.answer) }
}

/// That the destination works is told by every answer but 5xx, and by 429 neither.
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
