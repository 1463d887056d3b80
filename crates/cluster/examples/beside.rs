//! An earlier version beside this one, under load: its programs start alone, this version migrates under them, joins them,
//! stays alone, and they come back. Nothing may be lost, and nothing arrive twice. Run by `cargo xtask compat`, which builds the
//! earlier programs.
//!
//! ```text
//! beside EARLIER_BINARIES [EVENTS_PER_STEP]
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a trial that cannot go on panics")]

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use signalpost_testkit::{
    Client, env,
    receiver::{Failure, Faults},
    services::{Cluster, ClusterSpec, Kind, Own, cluster::ADMIN_KEY},
};
use trial::{Load, Target, Trial, all_run, ready, spec};

#[path = "../tests/trial/mod.rs"]
mod trial;

const KINDS: [Kind; 3] = [Kind::Api, Kind::Dispatcher, Kind::Retry];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let earlier = PathBuf::from(args.next().context("which folder has the earlier binaries?")?);
    let events = args.next().map_or(Ok(2_000), |events| events.parse())?;
    let spec = ClusterSpec { binaries: earlier.clone(), apis: 1, dispatchers: 1, retries: 1, ..spec() };
    let mut steps =
        Steps { trial: Trial::on(Cluster::start(&spec)?).await, events, accepted: BTreeSet::new(), step: 0 };
    let target = Target::new(&steps.trial, "beside").await;
    // So that each version also takes up what the other one has tried.
    target.receiver.set_faults(Faults::some(0.2, Failure::status(500)).with_latency(Duration::from_millis(5)));

    let load = steps.load("the earlier version alone");
    load.more(steps.events).await;
    let programs = env::binaries();
    tokio::task::block_in_place(|| steps.trial.cluster.migrate(&programs))?;
    load.more(steps.events).await;
    steps.finish("and migrated under it", load).await;

    steps.join(&programs).await?;
    let load = steps.load("both beside each other");
    load.more(2 * steps.events).await;
    steps.finish("for a while", load).await;

    let load = steps.load("the earlier ones leave in turn");
    load.more(steps.events / 2).await;
    steps.leave(0).await?;
    load.more(steps.events).await;
    steps.finish("and this version is alone", load).await;

    steps.join(&earlier).await?;
    let load = steps.load("the earlier ones come back beside it");
    load.more(steps.events).await;
    // Back to the earlier version wholly: schema and messages of this one stay.
    steps.leave(0).await?;
    load.more(steps.events).await;
    steps.finish("and are alone again", load).await;

    let duplicates = target.over(steps.trial.client(), "two versions", &steps.accepted).await;
    all_run(&mut steps.trial);
    ensure!(duplicates == 0, "{duplicates} duplicates");
    println!("nothing lost, nothing twice");
    Ok(())
}

struct Steps {
    trial: Trial,
    events: usize,
    accepted: BTreeSet<String>,
    step: usize,
}

impl Steps {
    fn load(&mut self, what: &str) -> Load {
        self.step += 1;
        println!("{what}");
        Load::start(&self.trial.clients, &format!("beside-{}", self.step), 16, Duration::from_millis(5))
    }

    async fn finish(&mut self, what: &str, load: Load) {
        let mut accepted = load.finish().await;
        println!("  … {what}: {} events", accepted.len());
        self.accepted.append(&mut accepted);
    }

    /// One more of each, of that version.
    async fn join(&mut self, binaries: &std::path::Path) -> anyhow::Result<()> {
        for kind in KINDS {
            let own = Own { binaries: Some(binaries.to_owned()), ..Own::default() };
            tokio::task::block_in_place(|| self.trial.cluster.add(kind, &own).map(drop))?;
            ready(self.trial.cluster.of(kind).last().context("it was added")?).await;
        }
        let api = self.trial.cluster.apis.last().context("it was added")?;
        self.trial.clients.push(Client::new(&api.url(), ADMIN_KEY));
        Ok(())
    }

    /// The one at that place of each kind drains and ends, under the load.
    async fn leave(&mut self, index: usize) -> anyhow::Result<()> {
        for kind in KINDS {
            let mut leaving = self.trial.cluster.of(kind).remove(index);
            tokio::task::block_in_place(|| leaving.stop())?;
        }
        self.trial.clients.remove(index);
        Ok(())
    }
}
