//! The bus port: carries deliveries that can be sent now from whoever makes them due to the dispatchers.
//!
//! The bus is *not* durable for us: in standalone it is memory, and Kafka can lose, too. What is on it is either
//! anchored in the store's `waiting` table or found by the reconciler. It gives no order.

pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod message;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
pub use message::{Message, Origin, Payload};
use signalpost_core::Timestamp;

/// Why the bus did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// It is away, slow or full. Nothing of ours is wrong; try again later.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// It has been closed on our side.
    #[error("the bus is closed")]
    Closed,
}

/// Publishes, and tells how far consumption has come.
#[async_trait]
pub trait Bus: Debug + Send + Sync + 'static {
    /// Publishes a batch and waits until the bus has acknowledged all of it (bounded: less than 5 s).
    /// On an error some may have been published; the caller keeps its anchor and publishes again as suspect.
    ///
    /// # Errors
    /// At least one message was not acknowledged.
    async fn publish(&self, batch: Vec<Arc<Message>>) -> Result<(), BusError>;

    /// Everything that was published before this time has been consumed and committed, or is lost: the hand-over time
    /// of the oldest uncommitted message, or the time of asking where there is none. None: not known now, and then
    /// the reconciler stands still. In-process: the start of the process, as what was handed over before is gone.
    async fn consumed_until(&self) -> Option<Timestamp>;

    /// Joins the group of dispatchers. Each call is one more member.
    ///
    /// # Errors
    /// The bus cannot be reached with these settings at all.
    async fn consume(&self) -> Result<Box<dyn Consumer>, BusError>;

    /// Messages published and not yet committed, for the lag gauge. None: not known.
    async fn lag(&self) -> Option<u64>;

    /// Whether it can be reached now, for health.
    ///
    /// # Errors
    /// It cannot.
    async fn check(&self) -> Result<(), BusError>;
}

/// A part of the bus that one consumer owns at a time.
pub type Partition = i32;

/// The place of a message. Offsets grow within a partition, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Where.
    pub partition: Partition,
    /// Which assignment of the partition: grows at every assignment, so that what an earlier owner read is told apart.
    pub epoch: u32,
    /// Which one.
    pub offset: i64,
}

/// What a consumer sees.
#[derive(Debug)]
pub enum Delivered {
    /// A message. `reread`: it may have been read before (by us or another, before an assignment), so it is a suspect.
    Message {
        /// Where it stands.
        place: Place,
        /// The message.
        message: Arc<Message>,
        /// It lay in the partition before the assignment.
        reread: bool,
    },
    /// Bytes that cannot be decoded, with the delivery id of its header where that is readable. The dispatcher sends
    /// it to [`Consumer::set_aside`] or back to the store, then calls its place done.
    Undecodable {
        /// Where it stands.
        place: Place,
        /// Of its header.
        delivery_id: Option<signalpost_core::DeliveryId>,
        /// What is wrong.
        error: String,
    },
    /// These partitions go to somebody else now. Called before they do: answer with [`Consumer::released`] after
    /// what is out has been detached or written (bounded; after 5 s they go anyway).
    Revoked(Vec<Partition>),
}

/// One member of the group. Cancellation-safe at every await.
#[async_trait]
pub trait Consumer: Debug + Send + 'static {
    /// Waits for at least one item and gives up to `most`.
    ///
    /// # Errors
    /// The bus is away; call again, it heals by itself.
    async fn receive(&mut self, most: usize) -> Result<Vec<Delivered>, BusError>;

    /// Everything below that offset of the partition (in that epoch) is done: it may be committed, soon and in batches.
    /// `next` carries the offset after the last done one. Never goes back; of an old epoch it is ignored.
    fn commit(&mut self, next: Place);

    /// Answers [`Delivered::Revoked`], with the last commits already told.
    fn released(&mut self, partitions: &[Partition]);

    /// Keeps an undecodable message where a person can look at it (`signalpost.unreadable`).
    ///
    /// # Errors
    /// The bus is away.
    async fn set_aside(&mut self, place: Place) -> Result<(), BusError>;

    /// Commits what is done and leaves the group.
    async fn close(self: Box<Self>);
}
