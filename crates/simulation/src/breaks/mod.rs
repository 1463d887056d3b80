//! Promises of ours, broken on purpose: ports that lie. A test shows that the simulation sees each of them.

use std::sync::Arc;

use clap::ValueEnum;
use signalpost_limits::Limits;
use signalpost_store::Store;

use crate::world::World;

/// What is lied about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// Nothing.
    Nothing,
}

impl Lie {
    /// The store, as it lies.
    pub fn store(self, _world: &Arc<World>, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::clone(store)
    }

    /// The limits, as they lie.
    pub fn limits(self, limits: &Arc<dyn Limits>) -> Arc<dyn Limits> {
        Arc::clone(limits)
    }
}
