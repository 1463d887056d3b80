//! What tests share: where services are, a client of our API, waiting for a condition, a proxy that breaks connections.

#![allow(clippy::missing_panics_doc, clippy::expect_used, reason = "a test that cannot go on panics")]

pub mod client;
pub mod env;
pub mod eventually;
pub mod proxy;

pub use client::Client;
pub use eventually::eventually;
pub use signalpost_receiver as receiver;
pub use signalpost_services as services;
