//! What the fast scenarios share: a target, producers and a sink on the wire, destinations, and a load that is measured.

mod measured;
mod told;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
pub use measured::{Measured, used};
use serde::Serialize;
use serde_json::{Value, json};
pub use told::{Line, tell_runs};

use crate::{
    epoch::Epoch,
    load::Pace,
    processes,
    run::bar,
    target::{self, Deployment, Size, Target},
    wire::{Client, FIRST_NUMBER, Plan, Prepared, Sink, Template, Variant, tally},
};

/// So many different requests take turns, at the least.
const VARIETY: usize = 512;
/// Requests of a direct run, and before it.
const DIRECT: u64 = 40_000;
const DIRECT_WARM: u64 = 4_000;
/// The path of the sink that direct runs use.
const DIRECT_PATH: u32 = 0;

/// Options of every fast scenario.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Connections of the producers.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Bytes of the data of an event; of several sizes the events take turns.
    #[arg(long, value_delimiter = ',', default_values_t = [500])]
    pub sizes: Vec<usize>,
    /// Events in a request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub batch: u64,
    /// Events before anything counts; default: 100,000 for a cluster, whose JVM starts cold, 5,000 for a standalone.
    #[arg(long)]
    pub warm: Option<u64>,
    /// `max_in_flight` of each destination.
    #[arg(long)]
    pub max_in_flight: Option<u32>,
}

/// A destination of a scenario.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its id.
    pub id: String,
    /// The only event type that it wants.
    pub event_type: String,
}

/// A fast scenario that has begun.
#[derive(Debug)]
pub struct Flow {
    /// The clock.
    pub epoch: Epoch,
    /// Where deliveries arrive.
    pub sink: Sink,
    /// What is measured.
    pub target: Target,
    options: Options,
    template: Template,
    addresses: Vec<SocketAddr>,
    warm: u64,
    next_number: AtomicU64,
    next_path: AtomicU32,
}

/// One load.
#[derive(Debug, Clone)]
pub struct Load {
    /// For the progress bar.
    pub what: &'static str,
    /// The requests that take turns.
    pub requests: Arc<[Prepared]>,
    /// How many events, about: whole requests are sent.
    pub events: u64,
    /// When they are due.
    pub pace: Pace,
    /// To how many destinations each event goes.
    pub fan: u64,
    /// Every so-manieth request repeats the one before; 0: none.
    pub repeat_every: u64,
    /// How long nothing may arrive before what is missing counts as lost.
    pub patience: Duration,
}

impl Load {
    /// As fast as they are answered, each to one destination.
    pub fn closed(what: &'static str, requests: Arc<[Prepared]>, events: u64) -> Self {
        let patience = Duration::from_secs(30);
        Self { what, requests, events, pace: Pace::Closed, fan: 1, repeat_every: 0, patience }
    }
}

impl Flow {
    /// Starts all of it.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(target: &target::Options, options: &Options, size: Size) -> anyhow::Result<Self> {
        let epoch = Epoch::start();
        let starting = bar("starting", 0);
        let sink = Sink::start(epoch, (Ipv4Addr::LOCALHOST, 0).into())?;
        let key = target.key.clone();
        let warm = match target.deployment {
            Deployment::Cluster => 100_000,
            Deployment::Standalone => 5_000,
        };
        let target = Target::start(target, size, &[]).await?;
        let mut addresses = Vec::new();
        for address in target.api.addresses() {
            let found = tokio::net::lookup_host(address).await.with_context(|| format!("the address {address}"))?;
            addresses.extend(found.take(1));
        }
        starting.finish_and_clear();
        let template = Template::signalpost(target.api.address(), &key, options.batch > 1);
        Ok(Self {
            epoch,
            sink,
            target,
            warm: options.warm.unwrap_or(warm),
            options: options.clone(),
            template,
            addresses,
            next_number: AtomicU64::new(FIRST_NUMBER),
            next_path: AtomicU32::new(DIRECT_PATH + 1),
        })
    }

    /// Creates destinations that want the types `<name>.0`, `<name>.1`, …, each at a path of its own.
    ///
    /// # Errors
    /// One is refused.
    pub async fn destinations(&self, name: &str, count: usize, further: &Value) -> anyhow::Result<Vec<Destination>> {
        let progress = bar("creating", count);
        let mut further = further.clone();
        if let Some(most) = self.options.max_in_flight {
            further["max_in_flight"] = json!(most);
        }
        let mut destinations = Vec::with_capacity(count);
        for number in 0..count {
            let event_type = format!("{name}.{number}");
            let url = self.sink.url(self.next_path.fetch_add(1, Ordering::Relaxed));
            let id = self.target.api.create_destination(&url, &event_type, &further).await?;
            destinations.push(Destination { id, event_type });
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(destinations)
    }

    /// Requests for events of these types, which take turns.
    pub fn requests(&self, types: &[&str]) -> Arc<[Prepared]> {
        self.made(&self.template, types, self.options.batch)
    }

    fn made(&self, template: &Template, types: &[&str], batch: u64) -> Arc<[Prepared]> {
        let events = VARIETY.max(types.len() * self.options.sizes.len());
        let variants: Vec<Variant> = (0..events)
            .map(|nth| Variant {
                event_type: types[nth % types.len()].to_owned(),
                bytes: self.options.sizes[nth / types.len() % self.options.sizes.len()],
                seed: u64::try_from(nth).unwrap_or(0),
            })
            .collect();
        let size = usize::try_from(batch).unwrap_or(1);
        variants.chunks(size).filter(|chunk| chunk.len() == size).map(|chunk| template.prepare(chunk)).collect()
    }

    /// The load before anything counts.
    ///
    /// # Errors
    /// As [`Self::run`]; or something was lost.
    pub async fn warm(&self, load: &Load) -> anyhow::Result<()> {
        if self.warm > 0 {
            let load = Load { what: "warming", events: self.warm, pace: Pace::Closed, ..load.clone() };
            let warmed = self.run(&load).await?;
            anyhow::ensure!(warmed.tally.lost == 0, "{} of {} were lost", warmed.tally.lost, warmed.tally.posted);
        }
        Ok(())
    }

    /// Requests each second of the same producers straight to the same sink, and the CPU seconds of both for each.
    ///
    /// # Errors
    /// They cannot reach it.
    pub async fn direct(&self) -> anyhow::Result<Direct> {
        let template = Template::direct(&self.sink.address().to_string(), DIRECT_PATH);
        let requests = self.made(&template, &["direct.0"], 1);
        let client = Client { addresses: vec![self.sink.address()], ..self.client() };
        let mut found = Direct::default();
        for count in [DIRECT_WARM, DIRECT] {
            let plan = self.plan(&Load::closed("direct", Arc::clone(&requests), count), 1);
            let before = self.sink.cpu();
            let sending = client.clone();
            let ran = tokio::task::spawn_blocking(move || sending.run(plan, Arc::default(), Arc::default())).await??;
            let arrivals = self.sink.take();
            let (tally, _) = tally(&ran.answers, 1, &arrivals, 1);
            anyhow::ensure!(tally.accepted == count && tally.lost == 0, "the direct run lost something: {tally:?}");
            let took = ran.ended.saturating_sub(ran.began).as_secs_f64();
            let each = |seconds: f64| seconds * 1e6 / used(count);
            found = Direct {
                per_second: used(count) / took,
                producers_us: each(ran.cpu),
                sink_us: each(self.sink.cpu() - before),
            };
        }
        Ok(found)
    }

    fn client(&self) -> Client {
        Client { addresses: self.addresses.clone(), connections: self.options.connections, epoch: self.epoch }
    }

    fn plan(&self, load: &Load, batch: u64) -> Plan {
        let count = load.events.div_ceil(batch).max(1);
        Plan {
            requests: Arc::clone(&load.requests),
            count,
            events: batch,
            first: self.next_number.fetch_add(count * batch, Ordering::Relaxed),
            // As many events, whatever the number of requests.
            pace: match load.pace {
                Pace::PerSecond(rate) => Pace::PerSecond(rate / used(batch)),
                Pace::Closed => Pace::Closed,
            },
            repeat_every: load.repeat_every,
        }
    }

    /// Posts a load and waits until all of it has arrived, and until what is measured is calm again.
    ///
    /// # Errors
    /// The producers cannot connect.
    pub async fn run(&self, load: &Load) -> anyhow::Result<Measured> {
        let plan = self.plan(load, self.options.batch);
        let batch = plan.events;
        let expected = plan.count * batch * load.fan;
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let progress = bar(load.what, usize::try_from(expected).unwrap_or(0));
        self.sink.take();
        let before = self.sink.accepted();
        let cpu = processes::cpu(&self.target.pids);
        let sink_cpu = self.sink.cpu();

        let client = self.client();
        let mut sending = tokio::task::spawn_blocking({
            let done = Arc::clone(&done);
            move || client.run(plan, done, stop)
        });
        let ran = loop {
            tokio::select! {
                ran = &mut sending => break ran??,
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    progress.set_position(self.sink.accepted() - before);
                }
            }
        };
        let mut arrivals = Vec::new();
        let mut arrived = self.sink.accepted();
        let mut last_change = self.epoch.now();
        let (tally, latencies) = loop {
            let now = self.sink.accepted();
            progress.set_position(now - before);
            if now != arrived {
                (arrived, last_change) = (now, self.epoch.now());
            }
            let quiet_for = self.epoch.now().saturating_sub(last_change);
            // What was refused never comes, and what came twice fills another's place: the ids decide, and a walk over them
            // is worth it only when nothing has come for a while.
            if now - before >= expected || quiet_for > Duration::from_secs(1) {
                arrivals.append(&mut self.sink.take());
                let found = tally(&ran.answers, batch, &arrivals, load.fan);
                if found.0.lost == 0 || quiet_for > load.patience {
                    break found;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        progress.finish_and_clear();
        self.calm().await;
        let late = self.sink.take();
        let (tally, latencies) = if late.is_empty() {
            (tally, latencies)
        } else {
            arrivals.extend(late);
            crate::wire::tally(&ran.answers, batch, &arrivals, load.fan)
        };
        let cpu = measured::since(&cpu, processes::cpu(&self.target.pids));
        let sink_cpu = self.sink.cpu() - sink_cpu;
        Measured::of(ran, batch, arrivals, tally, latencies, cpu, sink_cpu)
    }

    /// Waits until what is measured uses less than a fifth of a core: what it writes after the last arrival is part of the
    /// price of an event.
    async fn calm(&self) {
        let mut before = processes::cpu_of_all(&self.target.pids);
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = processes::cpu_of_all(&self.target.pids);
            if now - before < 0.021 {
                return;
            }
            before = now;
        }
    }
}

/// What a direct run found.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Direct {
    /// Requests each second.
    pub per_second: f64,
    /// CPU microseconds of the producers for each.
    pub producers_us: f64,
    /// And of the sink.
    pub sink_us: f64,
}
