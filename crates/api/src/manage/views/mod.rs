//! What the management half answers with: the JSON of each thing, made from what the store shows of it.

pub mod attempt;
pub mod audit;
pub mod dead_letter;
pub mod delivery;
pub mod destination;
pub mod event;
pub mod key;
pub mod replay;
pub mod signature;
pub mod tenant;
