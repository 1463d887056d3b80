//! Promises of ours, broken on purpose: ports that lie. A test shows that the simulation sees each of them, and by which
//! invariant.

mod limits;
mod store;

use std::sync::Arc;

use clap::ValueEnum;
use signalpost_limits::Limits;
use signalpost_store::{Store, layers::LayeredStore};

use self::{limits::LyingLimits, store::LyingStore};
use crate::{check::Invariant, gates::LayeredLimits, world::World};

/// What is lied about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// A group is answered as committed, and is not.
    AcknowledgesBeforeCommit,
    /// A delivery of an accepted event is left out.
    LeavesOutADestination,
    /// What is put back into the store is not.
    ForgetsWhatIsParked,
    /// What the bus lost is not looked for.
    NeverReconciles,
    /// A request that detached is not noted.
    ForgetsWhatIsDetached,
    /// An attempt is answered as written, and is not.
    WritesNoAttempt,
    /// An attempt is refused as superseded, and is the next one.
    RefusesAnAttempt,
    /// A delivery that may be sent once is answered as claimed, and is not.
    ForgetsAClaim,
    /// A follower is due while the delivery before it has not ended.
    HandsOutTwoHeads,
    /// The next of a lane is never due.
    DropsAFollower,
    /// A healthy destination is never fed, and everything to it goes through the feed; only where nothing else is wrong.
    Starves,
    /// Every token is granted.
    SendsPastTheLimit,
    /// Every dispatcher has all slots.
    GivesAllSlotsToAll,
    /// Every circuit is closed.
    IgnoresOpenCircuits,
}

impl Lie {
    /// All of them that this version can tell.
    pub const ALL: &'static [Self] = &[
        Self::AcknowledgesBeforeCommit,
        Self::LeavesOutADestination,
        Self::ForgetsWhatIsParked,
        Self::NeverReconciles,
        Self::ForgetsWhatIsDetached,
        Self::WritesNoAttempt,
        Self::RefusesAnAttempt,
        Self::ForgetsAClaim,
        Self::HandsOutTwoHeads,
        Self::DropsAFollower,
        Self::Starves,
        Self::SendsPastTheLimit,
        Self::GivesAllSlotsToAll,
        Self::IgnoresOpenCircuits,
    ];

    /// The invariant that it breaks.
    pub const fn breaks(self) -> Invariant {
        match self {
            Self::AcknowledgesBeforeCommit => Invariant::Durable,
            Self::LeavesOutADestination => Invariant::ReadYourRouting,
            Self::ForgetsWhatIsParked | Self::NeverReconciles | Self::ForgetsWhatIsDetached | Self::DropsAFollower => {
                Invariant::NeverForgotten
            }
            Self::WritesNoAttempt | Self::RefusesAnAttempt => Invariant::Accounted,
            Self::ForgetsAClaim => Invariant::AtMostOnce,
            Self::HandsOutTwoHeads => Invariant::Order,
            Self::Starves => Invariant::Isolation,
            Self::SendsPastTheLimit | Self::GivesAllSlotsToAll => Invariant::Limits,
            Self::IgnoresOpenCircuits => Invariant::Circuit,
        }
    }

    /// The store, as it lies.
    pub fn store(self, world: &Arc<World>, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(LayeredStore(LyingStore::new(self, world, Arc::clone(store))))
    }

    /// The limits, as they lie.
    pub fn limits(self, limits: &Arc<dyn Limits>) -> Arc<dyn Limits> {
        Arc::new(LayeredLimits(LyingLimits::new(self, Arc::clone(limits))))
    }
}
