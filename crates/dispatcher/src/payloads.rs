//! Reads payloads that travel by reference, right before they are sent, so that no more of them are in memory than
//! requests are out. A read is whatever was asked for while the one before ran.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use signalpost_bus::{Message, Payload};
use signalpost_core::{Event, EventId};
use signalpost_runtime::batcher::{Batcher, Entry, Rejected};
use signalpost_store::DispatchStore;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;

/// Events of one read: each may be a mebibyte.
const BATCH: usize = 32;
const CAPACITY: usize = 4096;

/// The reading side.
#[derive(Clone)]
pub(crate) struct Payloads(Batcher<EventId, Option<Arc<Event>>>);

impl Payloads {
    /// Starts the task. It ends when the last handle is gone.
    pub(crate) fn start(store: Arc<dyn DispatchStore>) -> (Self, JoinHandle<()>) {
        let (batcher, task) = Batcher::start(CAPACITY, BATCH, move |batch| {
            let store = Arc::clone(&store);
            async move { read(&*store, batch).await }
        });
        (Self(batcher), task)
    }

    /// The event of a message, with its data. None: it is gone from the store.
    ///
    /// # Errors
    /// The reader has ended, and nothing is known.
    pub(crate) async fn event(&self, message: &Message) -> Result<Option<Arc<Event>>, Rejected> {
        match message.payload {
            Payload::Inline => Ok(Some(Arc::clone(&message.event))),
            Payload::ByReference => self.0.submit_waiting(message.event.id).await,
        }
    }
}

async fn read(store: &dyn DispatchStore, batch: Vec<Entry<EventId, Option<Arc<Event>>>>) {
    let mut ids: Vec<_> = batch.iter().map(|entry| entry.item).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut backoff = Backoff::new();
    let events: BTreeMap<_, _> = loop {
        match AssertUnwindSafe(store.events(&ids)).catch_unwind().await {
            Ok(Ok(events)) => break events.into_iter().map(|event| (event.id, event)).collect(),
            Ok(Err(error)) => tracing::warn!(error = %error, "payloads not read; trying again"),
            Err(_) => tracing::error!("a panic while payloads were read; trying again"),
        }
        backoff.wait().await;
    };
    for entry in batch {
        let event = events.get(&entry.item).cloned();
        entry.reply(event);
    }
}
