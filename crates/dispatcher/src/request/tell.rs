//! Tells what came of a request: metrics, log, observer.

use metrics::{Counter, Histogram};
use signalpost_core::{AttemptOutcome, Destination, classify::Verdict};
use signalpost_sender::Exchange;
use signalpost_store::dispatch::Written;
use signalpost_telemetry::names;

use super::Context;
use crate::{job::Job, observer::AttemptReport};

/// What nearly every request counts. The handles are kept, as to look one up costs more than to count.
pub(crate) struct Meters {
    /// Attempts that delivered.
    attempts: Counter,
    attempt_seconds: Histogram,
    delivered: Counter,
    delivery_seconds: Histogram,
}

impl Meters {
    /// Of the process's recorder.
    pub(crate) fn new() -> Self {
        Self {
            attempts: attempts(AttemptOutcome::Delivered),
            attempt_seconds: metrics::histogram!(names::ATTEMPT_SECONDS),
            delivered: metrics::counter!(names::DELIVERED),
            delivery_seconds: metrics::histogram!(names::DELIVERY_SECONDS),
        }
    }
}

fn attempts(outcome: AttemptOutcome) -> Counter {
    metrics::counter!(names::ATTEMPTS, "outcome" => outcome.as_str())
}

/// To all who listen.
pub(super) fn tell(
    context: &Context,
    job: &Job,
    destination: &Destination,
    exchange: &Exchange,
    verdict: Verdict,
    written: Option<Written>,
) {
    let message = &job.message;
    let meters = &context.meters;
    match verdict.outcome() {
        AttemptOutcome::Delivered => meters.attempts.increment(1),
        outcome => attempts(outcome).increment(1),
    }
    meters.attempt_seconds.record(exchange.duration.as_secs_f64());
    if written != Some(Written::Done) {
        tracing::info!(delivery.id = %message.delivery_id, attempt = message.attempt, "outcome superseded");
        return;
    }
    let next_in = match verdict {
        Verdict::Delivered => {
            meters.delivered.increment(1);
            let age = context.clock.now().since(message.event.created_at());
            meters.delivery_seconds.record(age.as_secs_f64());
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
