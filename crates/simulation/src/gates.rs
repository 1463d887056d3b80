//! The ports as one life sees them.

mod limits;
mod store;

pub use limits::GatedLimits;
pub use store::{GatedStore, copied};
