//! The whole dispatcher in paused time, on ports in memory.

mod circuits;
mod harness;
mod lanes;
mod limits;
mod lives;
mod once;
mod outages;
mod slots;
mod stops;
