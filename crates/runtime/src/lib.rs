//! What long-lived tasks are built from: the system's clock and randomness behind their ports, a
//! shutdown signal in two steps, and the batcher that every hop of the hot path shares.

pub mod batcher;
pub mod shutdown;
pub mod signals;
pub mod system;

pub use batcher::{Batcher, Rejected};
pub use shutdown::Shutdown;
pub use signals::on_signals;
pub use system::{SystemClock, SystemEntropy};
