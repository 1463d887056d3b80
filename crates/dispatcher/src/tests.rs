//! The whole dispatcher in paused time, on ports in memory.

mod harness;
mod limits;
mod lives;
mod outages;
mod stops;
