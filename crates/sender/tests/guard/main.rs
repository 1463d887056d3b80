//! The egress guard from outside: the real sender, over real sockets, with the system's resolver.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod dns;
mod environment;
mod host;
mod isolated;
mod metadata;
mod ranges;
mod rebinding;
mod spellings;
mod support;
