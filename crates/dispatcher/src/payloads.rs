//! Reads payloads that travel by reference, right before they are sent. A read is whatever was asked for while the one
//! before ran.
//!
//! They are the large ones, so what they take up together is bounded, besides the number of requests. How large one is, is
//! known when it has been read: one for which there is no room is let go, waits for its room for a while, and is read again.
//! One that comes back later is not read before there is room for it.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::FutureExt as _;
use signalpost_bus::{Message, Payload};
use signalpost_core::{Event, EventId};
use signalpost_runtime::batcher::{Batcher, Entry, Rejected};
use signalpost_store::DispatchStore;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use crate::backoff::Backoff;

/// Events of one read: each may be a mebibyte. They come on top of what is bounded.
const BATCH: usize = 16;
const CAPACITY: usize = 4096;

/// Events without room whose sizes are remembered. With more, all are forgotten, and each is read once more to know it.
const REMEMBERED: usize = 16_384;

/// Bytes of one unit of room.
const UNIT: usize = 1024;

/// How often a payload is in memory while it is sent: as it was read, and as the body of its request.
const COPIES: usize = 2;

/// An event with its data, and the room that it takes up.
#[derive(Debug)]
pub(crate) struct Loaded {
    event: Arc<Event>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Deref for Loaded {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// What was found of a payload.
pub(crate) enum Found {
    /// The event with its data.
    Event(Loaded),
    /// The store has it no more.
    Gone,
    /// There was no room for it in time.
    NoRoom,
}

/// The reading side.
#[derive(Clone)]
pub(crate) struct Payloads {
    reads: Batcher<EventId, Option<Arc<Event>>>,
    room: Arc<Semaphore>,
    all_room: usize,
    /// The units of events for which there was no room.
    large: Arc<Mutex<HashMap<EventId, u32>>>,
}

impl Payloads {
    /// Starts the task. It ends when the last handle is gone. `bytes`: what all of them may take up.
    pub(crate) fn start(store: Arc<dyn DispatchStore>, bytes: usize) -> (Self, JoinHandle<()>) {
        let (batcher, task) = Batcher::start(CAPACITY, BATCH, move |batch| {
            let store = Arc::clone(&store);
            async move { read(&*store, batch).await }
        });
        let all_room = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        (Self { reads: batcher, room: Arc::new(Semaphore::new(all_room)), all_room, large: Arc::default() }, task)
    }

    /// The event of a message, with its data. Where there is no room for it, that is waited for until `patience` ends.
    ///
    /// # Errors
    /// The reader has ended, and nothing is known.
    pub(crate) async fn event(&self, message: &Message, patience: impl Future<Output = ()>) -> Result<Found, Rejected> {
        if message.payload == Payload::Inline {
            return Ok(Found::Event(Loaded { event: Arc::clone(&message.event), _room: None }));
        }
        let id = message.event.id;
        let known = self.large().get(&id).copied();
        let units = match known {
            Some(units) => units,
            None => {
                let Some(event) = self.reads.submit_waiting(id).await? else { return Ok(Found::Gone) };
                let units = self.units(&event);
                if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
                    return Ok(Found::Event(Loaded { event, _room: Some(room) }));
                }
                units
            }
        };
        let room = tokio::select! {
            biased;
            () = patience => {
                let mut large = self.large();
                if large.len() >= REMEMBERED {
                    large.clear();
                }
                large.insert(id, units);
                return Ok(Found::NoRoom);
            }
            room = Arc::clone(&self.room).acquire_many_owned(units) => room.map_err(|_closed| Rejected::Stopped)?,
        };
        self.large().remove(&id);
        let event = self.reads.submit_waiting(id).await?;
        Ok(event.map_or(Found::Gone, |event| Found::Event(Loaded { event, _room: Some(room) })))
    }

    fn large(&self) -> MutexGuard<'_, HashMap<EventId, u32>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an event takes up; one that is larger than all room takes all of it.
    fn units(&self, event: &Event) -> u32 {
        let units = event.data.len().saturating_mul(COPIES).div_ceil(UNIT).clamp(1, self.all_room);
        u32::try_from(units).unwrap_or(u32::MAX)
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
