//! The management half of the API, route by route and rule by rule, on the ports of a standalone Signalpost.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[allow(dead_code, reason = "shared with the tests of ingest")]
mod app;
mod credentials;
mod dead_letters;
mod deliveries;
mod destination_actions;
mod destinations;
mod edges;
mod egress;
mod events;
#[path = "../ingest/faulty.rs"]
#[allow(dead_code, reason = "shared with the tests of ingest")]
mod faulty;
mod fuzz;
mod hostile;
mod lists;
mod outages;
mod replays;
mod schema;
