//! The simulation: a whole Signalpost, several processes of each service, on ports in memory. One seed is one run, and one
//! run is one trace.
//!
//! What is real: the API behind its router, the dispatcher, retry, the SQLite store's code and SQL, the limits in memory.
//! What is made up: time ([`time`]), randomness ([`seed`]), the bus ([`bus`]), destinations ([`receivers`]), and what is
//! between a process and its ports ([`life`]): delays, failures, lost answers, and the end of the process at any call.
//! Around it, producers post ([`producers`]), people change things ([`people`]), things break ([`chaos`]).
//!
//! After every step the invariants are checked ([`check`]). [`breaks`] are ports that lie, to show that the checks see it.
//! `docs/simulation.md` tells how to read and replay a seed.

pub mod breaks;
mod bus;
mod chaos;
pub mod check;
mod client;
mod gates;
mod knobs;
mod life;
mod lives;
mod panics;
mod people;
mod producers;
mod receivers;
mod run;
mod seed;
mod time;
mod trace;
mod world;

pub use check::{Invariant, Violation};
pub use knobs::Knobs;
pub use run::{Options, Outcome, run};
