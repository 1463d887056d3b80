//! The jobs on small fakes of their ports, in paused time.

mod fakes;
mod feed;
mod interrupted;
mod life;
mod scheduled;
