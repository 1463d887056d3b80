//! One module for each scenario: its options, what it does, what it finds.

pub mod backlog;
pub mod backlog_dead;
pub mod burst;
pub mod fanout;
pub mod growth;
pub mod hostile;
pub mod idempotent;
pub mod ingest;
pub mod isolation;
pub mod many_destinations;
pub mod ordered;
pub mod outage;
pub mod rate;
pub mod rate_limited;
pub mod retry_storm;
pub mod rolling;
pub mod soak;
pub mod sustained;

mod neighbours;

pub use neighbours::whole;
