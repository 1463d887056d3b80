//! The feed brings to the bus what is due.
//!
//! Taking is leasing: the anchor of a delivery stays in the store, due again when the lease ends, so a feed that dies
//! between taking and publishing only delays. What the bus does not take is given back at once. A row whose detached
//! request never reported back is not published but handed to [`crate::interrupted`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::counter;
use signalpost_bus::{Message, Origin};
use signalpost_core::{DeliveryId, Timestamp, WaitReason};
use signalpost_store::schedule::{DueDelivery, FeedBudget};
use signalpost_telemetry::names;
use tokio::sync::Notify;

use crate::{
    Needs, Settings, interrupted,
    job::{Again, Job, JobError},
    room::Room,
};

/// The most of one publication: messages, and bytes of `data`.
const BATCH_MESSAGES: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The shortest pause: who says "in a moment" is not asked in a circle.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct Feed {
    needs: Needs,
    settings: Arc<Settings>,
    due: Arc<Notify>,
    room: Room,
}

impl Feed {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>, due: &Arc<Notify>) -> Self {
        Self { needs: needs.clone(), settings: Arc::clone(settings), due: Arc::clone(due), room: Room::default() }
    }

    /// Publishes in batches, in order. What was not acknowledged is given back.
    async fn publish(&mut self, deliveries: Vec<DueDelivery>) -> Result<(), JobError> {
        let mut rest = batches(deliveries.into_iter().map(Message::from)).into_iter();
        while let Some(batch) = rest.next() {
            let count = batch.len();
            if let Err(error) = self.needs.bus.publish(batch.clone()).await {
                let unsent = batch.into_iter().chain(rest.flatten());
                let leases = unsent.filter_map(|message| lease(&message)).collect::<Vec<_>>();
                return Err(self.give_back(&leases, error.into()).await);
            }
            self.room.published(count);
            counter!(names::FED).increment(count as u64);
        }
        Ok(())
    }

    /// Gives leases back because of an error, which it returns. Where that fails, too, they run out by themselves.
    async fn give_back(&self, leases: &[(DeliveryId, Timestamp)], because: JobError) -> JobError {
        if let Err(error) = self.needs.schedule.give_back(leases).await {
            let deliveries = leases.len();
            tracing::warn!(%error, deliveries, "leases could not be given back; their deliveries are late");
        }
        because
    }
}

#[async_trait]
impl Job for Feed {
    const NAME: &'static str = "feed";

    fn interval(&self) -> Duration {
        self.settings.feed_poll
    }

    fn wake(&self) -> Option<&Notify> {
        Some(&self.due)
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let room = self.room.on(self.needs.bus.as_ref(), self.settings.most_on_bus).await;
        let lease = self.settings.feed_lease;
        let per_destination = self.settings.feed_per_destination;
        let budget = FeedBudget { most: self.settings.feed_most.min(room), per_destination, lease };
        let due = self.needs.schedule.take_due(budget).await?;
        let (detached, ready): (Vec<_>, Vec<_>) =
            due.deliveries.into_iter().partition(|delivery| delivery.reason == WaitReason::InFlight);
        // Both are leased: what fails in one must not keep the other from being handled.
        let published = self.publish(ready).await;
        let leases = detached.iter().map(|delivery| (delivery.delivery_id, delivery.leased_until)).collect::<Vec<_>>();
        if let Err(error) = interrupted::record(&self.needs, &self.settings, detached).await {
            return Err(self.give_back(&leases, error).await);
        }
        published?;
        // A full bus is asked again after the interval, whatever is due.
        let full = room < self.settings.feed_most;
        Ok(match due.next_in {
            _ if full => Again::Later,
            _ if due.more => Again::Now,
            Some(next_in) => Again::After(next_in.clamp(SHORTEST_PAUSE, self.settings.feed_poll)),
            None => Again::Later,
        })
    }
}

fn lease(message: &Message) -> Option<(DeliveryId, Timestamp)> {
    match message.origin {
        Origin::Feed { leased_until } => Some((message.delivery_id, leased_until)),
        Origin::Fresh => None,
    }
}

/// Cuts messages into publications, in order.
fn batches(messages: impl Iterator<Item = Message>) -> Vec<Vec<Arc<Message>>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let size = message.event.data.len();
        if !batch.is_empty() && (batch.len() >= BATCH_MESSAGES || bytes + size > BATCH_BYTES) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(Arc::new(message));
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}
