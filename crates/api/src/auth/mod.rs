//! Who asks, in which tenant, with which scopes, from where.
//!
//! Handlers take a [`May`] with the scope that they need, or an [`Operator`], and never look at headers themselves. There are two
//! kinds of keys: the operator's ([`OperatorKeys`]), who acts with every scope in the tenant named by the header
//! `Signalpost-Tenant`, or in `default`; and those of tenants ([`Keys`]), which act in their tenant alone.
//!
//! What was read of a key or a tenant is used for [`fresh::LIFE`] at most, counted from before it was read: a key that is
//! revoked does nothing a second later, on every process; on this one at once. This does not protect against a key that was stolen and is
//! not revoked: it does what it may from anywhere.

mod address;
mod caller;
mod directory;
pub mod fresh;
mod last_use;
mod operator;

pub use address::client_address;
pub use caller::{
    AuditRead, Caller, DeadLettersWrite, DestinationsRead, DestinationsWrite, EventsRead, EventsWrite, May, Operator,
    Registrar, Who,
};
pub use directory::{Directory, KnownKey};
pub use last_use::LastUse;
pub use operator::OperatorKeys;
