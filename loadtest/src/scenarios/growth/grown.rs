//! A Signalpost that is brought from one size to the next, and measured there.

use anyhow::ensure;
use serde_json::json;

use super::{Of, Options, Point};
use crate::{
    flow::{Flow, Load, Requests, Tenant},
    scenarios::burst::repeated,
    stored::stored,
    target::{self, Size},
    wire::Tally,
};

/// Among so many destinations the events of `--of dispatchers` take turns, so that each dispatcher has some: what one destination
/// gets lies mostly with one of them.
const SPREAD: u64 = 100;
/// Events that are stored at once: all of them have arrived before the next, so memory holds no more.
const CHUNK: u64 = 200_000;
/// Events in each request of those.
const BATCH: u64 = 100;

/// It, and what it has got so far.
pub struct Grown {
    /// What is measured.
    pub flow: Flow,
    of: Of,
    /// The types that its destinations want: one for each, or the same for all.
    types: Vec<String>,
    tenants: Vec<Tenant>,
    /// Events that were accepted, of whatever load.
    accepted: u64,
}

impl Grown {
    /// Starts it; for `--of dispatchers`, with so many of them.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(target: &target::Options, options: &Options, size: u64) -> anyhow::Result<Self> {
        let dispatchers = if options.of == Of::Dispatchers { usize::try_from(size)? } else { 1 };
        let flow = Flow::start_with(target, &options.flow, Size { dispatchers, ..Size::ONE }).await?;
        Ok(Self { flow, of: options.of, types: Vec::new(), tenants: Vec::new(), accepted: 0 })
    }

    /// Brings it to a size, warms it up there, and measures bursts.
    ///
    /// # Errors
    /// Something is refused, or is lost before anything counts.
    pub async fn measure(&mut self, size: u64, options: &Options) -> anyhow::Result<Point> {
        let requests = self.grow(size).await?;
        let fan = if self.of == Of::Fan { size } else { 1 };
        let load = Load::closed("growth", requests, options.count / fan).fan(fan);
        let filled = if self.of == Of::Stored { self.fill(size).await? } else { Vec::new() };
        self.accepted += self.flow.warm(&load).await?;
        let before = self.accepted;
        let stored = tokio::task::block_in_place(|| stored(&self.flow.target.running))?;
        let (runs, _) = repeated(&self.flow, &load, options.runs).await?;
        self.accepted += runs.iter().map(|line| line.tally.accepted).sum::<u64>();
        // A burst stores its own events: fewer before it are as many.
        let measured_at = if self.of == Of::Stored { before.max(options.count) } else { size };
        // Each number of dispatchers is another Signalpost, so it is asked for here.
        let late = self.flow.came_late().await;
        Ok(Point { size, measured_at, fan, stored_mib: stored.mib, filled, runs, late })
    }

    /// Creates what is missing for a size; the requests of its load.
    async fn grow(&mut self, size: u64) -> anyhow::Result<Requests> {
        match self.of {
            Of::Destinations => self.destinations(size, false).await?,
            Of::Dispatchers => self.destinations(SPREAD, false).await?,
            Of::Fan => self.destinations(size, true).await?,
            Of::Stored => self.destinations(1, false).await?,
            Of::Bytes => {
                // Of the direct runs, too.
                self.flow.options.sizes = vec![usize::try_from(size)?];
                self.destinations(1, false).await?;
            }
            Of::Tenants => {
                let (there, wanted) = (self.tenants.len(), usize::try_from(size)?);
                self.tenants.extend(self.flow.tenants("growth", there, wanted.saturating_sub(there)).await?);
                return Ok(self.flow.requests_of(&self.tenants));
            }
        }
        let different = if self.of == Of::Fan { 1 } else { self.types.len() };
        let types: Vec<&str> = self.types.iter().take(different).map(String::as_str).collect();
        Ok(self.flow.requests(&types))
    }

    /// Creates those that are missing, each of which wants a type of its own, or all the same.
    async fn destinations(&mut self, wanted: u64, same: bool) -> anyhow::Result<()> {
        let there = self.types.len();
        let event_type = |nth| if same { "growth.0".to_owned() } else { format!("growth.{}", there + nth) };
        let missing = usize::try_from(wanted)?.saturating_sub(there);
        let created = self.flow.destinations(missing, event_type, &json!({})).await?;
        self.types.extend(created.into_iter().map(|destination| destination.event_type));
        Ok(())
    }

    /// Posts, in batches, what is missing until so many events will be stored when it is warm; what became of them.
    async fn fill(&mut self, wanted: u64) -> anyhow::Result<Vec<Tally>> {
        let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
        let requests = self.flow.batches(&types, BATCH);
        let enough = wanted.saturating_sub(self.flow.warm);
        let mut filled = Vec::new();
        while self.accepted < enough {
            let missing = enough - self.accepted;
            let left = missing.div_ceil(CHUNK);
            let load = Load::closed(format!("storing, {left} left"), requests.clone(), missing.min(CHUNK));
            let tally = self.flow.run(&load).await?.tally;
            ensure!(tally.accepted > 0, "none of {} events was taken that should be stored", tally.posted);
            self.accepted += tally.accepted;
            filled.push(tally);
        }
        Ok(filled)
    }
}
