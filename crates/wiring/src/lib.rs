//! What the mains share, so that each of them only names its parts: settings become the settings of libraries
//! ([`settings`]), the keys of secrets at rest are checked ([`keys`]), a process starts, listens, drains and ends with the right exit code ([`process`], [`threads`],
//! [`listen`], [`parts`], [`failure`]).
//!
//! Names no backend: stores, buses and limits are chosen by the binaries.

pub mod failure;
pub mod finding;
pub mod keys;
pub mod listen;
pub mod parts;
pub mod process;
pub mod settings;
pub mod threads;

/// Of every binary that is wired here: a tenth less of a processor for each event than with that of glibc (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use failure::Failure;
pub use finding::Finding;
pub use parts::Parts;
pub use process::{Process, run};
pub use threads::Threads;
