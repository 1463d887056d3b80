//! Attempts that a crash interrupted: a request was detached, its deadline has passed, and nobody has written what came
//! of it. That it may have reached its destination is recorded before another one is made.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use metrics::counter;
use signalpost_core::{
    AttemptOutcome, DeadReason, Destination, DestinationId, DestinationState, Entropy, Guarantee, Timestamp,
};
use signalpost_store::{
    StoreError,
    dispatch::{Attempt, DeliveryWrite, Next, Target, Written},
    schedule::DueDelivery,
};
use signalpost_telemetry::names;

use crate::{Needs, Settings, job::JobError};

/// What the owner of the destination reads.
const ERROR: &str = "the process that made this request ended before it wrote what came of it";

/// Records them all in one transaction, and lets them be tried again, or ends them.
pub(crate) async fn record(
    needs: &Needs,
    settings: &Arc<Settings>,
    detached: Vec<DueDelivery>,
) -> Result<(), JobError> {
    if detached.is_empty() {
        return Ok(());
    }
    let mut ids = detached.iter().map(|delivery| delivery.destination_id).collect::<Vec<_>>();
    ids.sort_unstable();
    ids.dedup();
    let destinations = needs.dispatch.destinations(&ids).await?;
    let destinations = destinations.into_iter().map(|d| (d.id, d)).collect::<BTreeMap<_, _>>();
    let writes =
        detached.iter().map(|due| judge(due, &destinations, settings, needs.entropy.as_ref())).collect::<Vec<_>>();
    let written = write(needs, &writes).await?;
    let recorded = writes
        .iter()
        .zip(written)
        .filter(|(write, written)| matches!(write, DeliveryWrite::Attempt { .. }) && *written == Written::Done);
    let recorded = recorded.map(|(write, _)| write).collect::<Vec<_>>();
    for write in &recorded {
        let target = write.target();
        tracing::warn!(delivery.id = %target.delivery_id, destination.id = %target.destination_id, "attempt interrupted");
        if let DeliveryWrite::Attempt { next: Next::Dead { reason }, .. } = write {
            counter!(names::DEAD, "reason" => reason.as_str()).increment(1);
        }
    }
    counter!(names::INTERRUPTED).increment(recorded.len() as u64);
    Ok(())
}

/// Writes a batch; where the store refuses one of it, each alone, so that one never holds up the others.
async fn write(needs: &Needs, writes: &[DeliveryWrite]) -> Result<Vec<Written>, StoreError> {
    match needs.dispatch.write(writes, false).await.map(|report| report.written) {
        Err(StoreError::Data(error)) if writes.len() == 1 => {
            let delivery = writes[0].target().delivery_id;
            tracing::error!(delivery.id = %delivery, %error, "an interrupted attempt cannot be recorded");
            Ok(vec![Written::Superseded])
        }
        Err(StoreError::Data(_)) => {
            let mut written = Vec::with_capacity(writes.len());
            for write in writes {
                written.extend(Box::pin(self::write(needs, std::slice::from_ref(write))).await?);
            }
            Ok(written)
        }
        other => other,
    }
}

fn judge(
    due: &DueDelivery,
    destinations: &BTreeMap<DestinationId, Destination>,
    settings: &Settings,
    entropy: &dyn Entropy,
) -> DeliveryWrite {
    let target = Target {
        delivery_id: due.delivery_id,
        tenant_id: due.tenant_id,
        destination_id: due.destination_id,
        event_id: due.event.id,
        lease: None,
    };
    let destination = destinations.get(&due.destination_id).filter(|d| d.state != DestinationState::Deleted);
    let Some(destination) = destination else {
        return DeliveryWrite::End { target, dead: None };
    };
    let number = due.attempts.saturating_add(1);
    // The moment of the take, by the store's clock.
    let now: Timestamp = due.leased_until - settings.feed_lease;
    let next = if due.guarantee == Guarantee::AtMostOnce {
        Next::Dead { reason: DeadReason::UnknownOutcome }
    } else if destination.spec.retry.pause_after(number, entropy).is_none() {
        Next::Dead { reason: DeadReason::Exhausted }
    } else if now.since(due.born_at.unwrap_or_else(|| due.delivery_id.created_at())) > settings.max_age {
        Next::Dead { reason: DeadReason::Expired }
    } else {
        // Its pause is long over: the deadline of a request is later than most.
        Next::Retry { after: Duration::ZERO }
    };
    let attempt = Attempt {
        number,
        started_at: now,
        duration: Duration::ZERO,
        outcome: AttemptOutcome::Interrupted,
        status_code: None,
        response_excerpt: Bytes::new(),
        error: Some(ERROR.to_owned()),
    };
    DeliveryWrite::Attempt { target, attempt, next }
}
