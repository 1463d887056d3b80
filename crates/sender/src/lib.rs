//! The HTTP client that talks to destinations. The only code of Signalpost that opens connections to them.
//!
//! The way of a request: what requests to a destination have in common (`plan`), first of all the URL's text, which
//! [`EgressPolicy::check_url`] judged → the body is built once ([`body`]) → headers and signatures ([`headers`], [`signatures`]) → a connection
//! that lies idle or a new one (`pool`), whose resolver gives only addresses that the policy allows (`resolver`), made directly or through the operator's
//! proxy (`proxy`) → the answer, bounded in time and size (`client`) → an [`Exchange`].
//!
//! What it does not do: follow redirects, retry an attempt, judge what an answer means
//! ([`signalpost_core::classify`] does), or record anything.

pub mod address;
pub mod body;
mod client;
mod egress;
mod failure;
pub mod headers;
mod plan;
mod pool;
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
