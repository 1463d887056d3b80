//! One module for each scenario: its options, what it does, what it finds.

pub mod backlog_dead;
pub mod burst;
pub mod hostile;
pub mod isolation;
pub mod ordered;
pub mod rate;
pub mod rolling;

mod neighbours;
