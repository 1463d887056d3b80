//! The exchange, and the detaching beside it.

use std::time::Duration;

use signalpost_core::{Destination, Guarantee};
use signalpost_runtime::Rejected;
use signalpost_sender::{Exchange, Outgoing};
use signalpost_store::dispatch::{DeliveryWrite, Written};
use signalpost_telemetry::names;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::job::{Job, Signal};

/// How an exchange ended.
pub(super) enum Exchanged {
    /// By itself.
    Ended(Exchange),
    /// In a lane: it was still out, and not detached, when its lease ended. It took so long.
    GivenUp(Duration),
}

/// When a request that starts now must have ended: the whole time-out is left, and whoever is late by less than the grace
/// is still believed.
pub(super) fn deadline(context: &Context, destination: &Destination) -> Duration {
    destination.spec.timeout() + context.settings.detach_grace
}

/// The exchange, and beside it the detaching where it takes long.
pub(super) async fn exchange(
    context: &Context,
    job: &Job,
    outgoing: &Outgoing<'_>,
    detach: &CancellationToken,
) -> Result<Exchanged, Rejected> {
    let began = context.clock.elapsed();
    let mut exchange = context.exchanger.exchange(outgoing);
    if job.message.guarantee == Guarantee::AtMostOnce {
        // It is as good as detached.
        return Ok(Exchanged::Ended(exchange.await));
    }
    let wait = context.settings.detach_after;
    tokio::select! {
        biased;
        exchange = &mut exchange => return Ok(Exchanged::Ended(exchange)),
        () = sleep(wait) => {}
        () = detach.cancelled() => {}
    }
    let mut detaching = Box::pin(async {
        let deadline = deadline(context, outgoing.destination);
        let write = DeliveryWrite::Detach { target: job.target(), attempt: outgoing.attempt, deadline };
        let written = context.writer.write_until(write, job.write_until()).await?;
        if written == Some(Written::Done) {
            metrics::counter!(names::DETACHED).increment(1);
        }
        if let Some(place) = job.place {
            let _gone = context.signals.send(Signal::Detached(place));
        }
        Ok(written)
    });
    // The outcome must not be written before the detaching is: so both are waited for.
    let Some(give_up_at) = job.give_up_at() else {
        let (exchange, detached) = futures::future::join(exchange, detaching).await;
        return detached.map(|_| Exchanged::Ended(exchange));
    };
    let mut ended = None;
    let mut give_up = Box::pin(sleep(give_up_at.saturating_sub(context.clock.elapsed())));
    let detached = loop {
        tokio::select! {
            biased;
            exchange = &mut exchange, if ended.is_none() => ended = Some(exchange),
            detached = &mut detaching => break detached?,
            () = &mut give_up => break None,
        }
    };
    match ended {
        // Its outcome is written on its condition, as if it had ended a second after it began.
        Some(exchange) => Ok(Exchanged::Ended(exchange)),
        None if detached == Some(Written::Done) => Ok(Exchanged::Ended(exchange.await)),
        None => Ok(Exchanged::GivenUp(context.clock.elapsed().saturating_sub(began))),
    }
}
