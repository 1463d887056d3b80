//! Everything that time drives.
//!
//! The actors are independent jobs, each with its own interval, each run by [`job::drive`], which outlives every error:
//!
//! | job | brings forward |
//! |---|---|
//! | [`relay`] | what was committed and never acknowledged by the bus |
//! | [`feed`] | what is due: leases it and publishes it; records attempts that a crash interrupted |
//! | [`reconciler`] | what the bus has lost |
//! | [`fan_outs`] | events for more destinations than one transaction holds |
//! | [`replays`] | replay jobs, at their rate |
//! | [`housekeeping`] | deleted destinations and tenants, destinations that fail for good, partitions, retention |
//! | [`gauges`] | nothing; shows how much waits |
//!
//! Nothing but the store remembers anything: a job that dies at any instruction is continued by the next run, here or
//! in another process. All of them may run in several processes at once; the store's leases keep them apart.

mod fan_outs;
mod feed;
mod gauges;
mod housekeeping;
mod interrupted;
mod job;
mod reconciler;
mod relay;
mod replays;
mod room;
mod settings;

use std::{sync::Arc, time::Duration};

use signalpost_bus::Bus;
use signalpost_core::{Clock, Entropy};
use signalpost_runtime::Shutdown;
use signalpost_store::{DispatchStore, Health, ScheduleStore, Store, StoreError};
use tokio::{sync::Notify, task::JoinSet};

pub use settings::Settings;

use crate::job::{Job, drive};

/// What a service hands in.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Where what is due goes.
    pub bus: Arc<dyn Bus>,
    /// Measures the rate of replays.
    pub clock: Arc<dyn Clock>,
    /// Spreads pauses.
    pub entropy: Arc<dyn Entropy>,
}

/// The parts of [`Ports`] that are used here.
#[derive(Debug, Clone)]
pub struct Needs {
    /// What time drives.
    pub schedule: Arc<dyn ScheduleStore>,
    /// Records interrupted attempts.
    pub dispatch: Arc<dyn DispatchStore>,
    /// Tells the store's time.
    pub health: Arc<dyn Health>,
    /// Where what is due goes.
    pub bus: Arc<dyn Bus>,
    /// Measures the rate of replays.
    pub clock: Arc<dyn Clock>,
    /// Spreads pauses.
    pub entropy: Arc<dyn Entropy>,
}

impl From<Ports> for Needs {
    fn from(ports: Ports) -> Self {
        let Ports { store, bus, clock, entropy } = ports;
        Self { schedule: store.clone(), dispatch: store.clone(), health: store, bus, clock, entropy }
    }
}

/// Why the service ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// A job panicked: a bug. The others were stopped.
    #[error("a background job panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// With a bus in memory, before anything is accepted: takes over the outbox records of the process before this one. While
/// nobody writes records, all there are have lost their owner; once an API runs, only their age tells.
///
/// # Errors
/// The store is away. What is left is taken by [`run`], later.
pub async fn recover(needs: impl Into<Needs>, settings: &Settings) -> Result<(), StoreError> {
    let needs = needs.into();
    while needs.schedule.relay(Duration::ZERO, settings.relay_records).await? >= settings.relay_records {}
    Ok(())
}

/// Runs all jobs until the shutdown drains: each ends after the step that it is in; at its second step at once.
///
/// # Errors
/// A job panicked. Errors of store and bus end nothing.
pub async fn run(needs: impl Into<Needs>, settings: Settings, shutdown: Shutdown) -> Result<(), RetryError> {
    let needs = needs.into();
    let settings = Arc::new(settings);
    // Told by the jobs that make something due, heard by the feed.
    let due = Arc::new(Notify::new());
    let mut jobs = Jobs { set: JoinSet::new(), shutdown: shutdown.clone() };
    jobs.start(relay::Relay::new(&needs, &settings, &due));
    jobs.start(reconciler::Reconciler::new(&needs, &settings, &due));
    jobs.start(feed::Feed::new(&needs, &settings, &due));
    jobs.start(fan_outs::FanOuts::new(&needs, &settings, &due));
    jobs.start(replays::Replays::new(&needs, &settings, &due));
    jobs.start(housekeeping::Sweep::new(&needs, &settings));
    jobs.start(housekeeping::SweepTenants::new(&needs, &settings));
    jobs.start(housekeeping::Disable::new(&needs, &settings));
    jobs.start(housekeeping::Partitions::new(&needs, &settings));
    jobs.start(housekeeping::Retain::new(&needs, &settings));
    jobs.start(gauges::Gauges::new(&needs, &settings));
    let mut set = jobs.set;
    loop {
        tokio::select! {
            biased;
            () = shutdown.stopped() => {
                set.shutdown().await;
                return Ok(());
            }
            ended = set.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    set.shutdown().await;
                    return Err(RetryError::Panicked(error));
                }
            },
        }
    }
}

struct Jobs {
    set: JoinSet<()>,
    shutdown: Shutdown,
}

impl Jobs {
    fn start(&mut self, job: impl Job) {
        self.set.spawn(drive(job, self.shutdown.clone()));
    }
}
