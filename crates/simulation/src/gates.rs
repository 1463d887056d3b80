//! The ports as one life sees them.

mod limits;
mod store;
mod tapped;

pub use limits::GatedLimits;
pub use store::{GatedStore, copied};
pub use tapped::TappedLimits;
