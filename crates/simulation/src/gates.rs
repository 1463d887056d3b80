//! The ports as one life sees them.

mod layer;
mod limits;
mod store;
mod tapped;

pub use layer::{LayeredLimits, LimitsLayer};
pub use limits::GatedLimits;
pub use store::{GatedStore, copied};
pub use tapped::TappedLimits;
