//! HTTP/1.1 by hand, for loads that are fast: on a small machine the load competes with what it measures, so producers and
//! receiver may cost but a few microseconds a request. Each side is one thread; requests are made before the run, and only
//! the numbers of their events are written while it lasts.
//!
//! It is for measuring on a trusted network, no client for anything else: no TLS, no redirects, no proxies.

mod client;
mod frame;
mod late;
mod prepared;
mod sink;
mod tally;
mod template;
#[cfg(test)]
mod tests;

pub use client::{Answered, Client, Plan, Ran};
pub use late::Late;
pub use prepared::{FIRST_NUMBER, Prepared};
pub use sink::{Arrival, Sink};
pub use tally::{Held, Tally, tally};
pub use template::{Template, Variant};
