//! One member of the group.
//!
//! librdkafka's consumer lives on a thread of its own ([`reader`]), because a rebalance has to wait there until the
//! dispatcher has let go of what it loses; [`looks`] tell when that client is stuck. This half is what the dispatcher holds; both
//! meet in [`shared`].

mod looks;
mod reader;
mod shared;

use std::{sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use signalpost_bus::{BusError, Consumer, Delivered, Partition, Place};
use signalpost_core::Clock;
use tokio::sync::oneshot;

use self::{reader::Reader, shared::Shared};
use crate::{
    publisher::{Publisher, Record},
    settings::KafkaSettings,
    topics::Repair,
};

/// How long closing waits for the last commit and for leaving the group. The thread goes on where that is not enough.
const CLOSE_TIME: Duration = Duration::from_secs(6);

/// Names what is wrong with a message that was set aside.
const ERROR_HEADER: &str = "signalpost-error";

#[derive(Debug)]
pub(crate) struct KafkaConsumer {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    unreadable_topic: String,
    /// Ends when the thread does.
    left: oneshot::Receiver<()>,
}

impl KafkaConsumer {
    pub(crate) fn join(
        settings: Arc<KafkaSettings>,
        clock: Arc<dyn Clock>,
        publisher: Arc<Publisher>,
        repair: Repair,
    ) -> Result<Self, BusError> {
        let shared = Arc::new(Shared::default());
        let (leaving, left) = oneshot::channel();
        let unreadable_topic = settings.unreadable_topic();
        let mut reader = Reader::new(settings, Arc::clone(&shared), clock, repair)
            .map_err(|error| BusError::Unavailable(error.to_string()))?;
        thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || {
                reader.run();
                // Leaves the group.
                drop(reader);
                let _nobody_waits = leaving.send(());
            })
            .map_err(|error| BusError::Unavailable(error.to_string()))?;
        Ok(Self { shared, publisher, unreadable_topic, left })
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(&mut self, most: usize) -> Result<Vec<Delivered>, BusError> {
        loop {
            if let Some(items) = self.shared.take(most)? {
                return Ok(items);
            }
            // One permit is kept for an arrival between looking and waiting.
            self.shared.arrived.notified().await;
        }
    }

    fn commit(&mut self, next: Place) {
        self.shared.commit(next);
    }

    fn released(&mut self, partitions: &[Partition]) {
        self.shared.released(partitions);
    }

    async fn set_aside(&mut self, place: Place) -> Result<(), BusError> {
        // Where it is not known any more, its partition has gone to somebody else, who will meet it again.
        let Some(raw) = self.shared.unreadable(place) else { return Ok(()) };
        let headers =
            raw.headers.insert(rdkafka::message::Header { key: ERROR_HEADER, value: Some(raw.error.as_bytes()) });
        let record = Record { key: raw.key, headers: Some(headers), value: raw.value };
        self.publisher.publish(self.unreadable_topic.clone(), vec![record]).await
    }

    async fn close(mut self: Box<Self>) {
        self.shared.close();
        if tokio::time::timeout(CLOSE_TIME, &mut self.left).await.is_err() {
            tracing::warn!("leaving the group of dispatchers takes long; it goes on in the background");
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.shared.close();
    }
}
