//! The HTTP client that talks to destinations. The only code of Signalpost that opens connections to them.
//!
//! The way of a request: [`EgressPolicy::check_url`] judges the URL's text (again, at every send) → the body is built
//! once ([`body`]) → headers and signatures ([`headers`], [`signatures`]) → a pooled connection, whose resolver gives only addresses
//! that the policy allows (`resolver`), made directly or through the operator's proxy (`proxy`) → the answer, bounded in time and size (`client`) → an [`Exchange`].
//!
//! What it does not do: follow redirects, retry an attempt, judge what an answer means
//! ([`signalpost_core::classify`] does), or record anything.

pub mod address;
pub mod body;
mod client;
mod egress;
mod failure;
pub mod headers;
mod proxy;
mod resolver;
mod retry_after;
mod roots;
mod scrub;
mod secrets;
pub mod signatures;
mod traceparent;

pub use client::{Exchange, Outgoing, Sender, SenderError, SenderSettings};
pub use egress::{DEFAULT_DENY_PORTS, EgressPolicy, UrlDenied};
pub use proxy::{BadProxy, EgressProxy};
pub use roots::{BadRoots, ExtraRoots};
