//! What the fast scenarios share: a target, producers and a sink on the wire, destinations, and loads that are measured.

mod load;
mod measured;
mod options;
mod posting;
mod tenants;
mod told;

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use serde_json::{Value, json};

pub use self::{
    load::{Load, Requests},
    measured::{Bar, Measured, figure},
    options::Options,
    posting::Direct,
    tenants::Tenant,
    told::{Line, percentiles, plot_cpu, plot_curve, tallies, tell_beside, tell_memory, tell_runs},
};
use crate::{
    client::Api,
    epoch::Epoch,
    run::bar,
    target::{self, Deployment, Running, Size, Target},
    wire::{FIRST_NUMBER, Late, Sink, Template, Variant},
};

/// So many different requests take turns, at the least.
const VARIETY: usize = 512;
/// Destinations that are created at once.
const CREATING: usize = 16;
/// The path of the sink that direct runs use.
const DIRECT_PATH: u32 = 0;

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
    /// How loads are made.
    pub options: Options,
    /// What requests are made from: for events one by one, and for batches of them.
    templates: [Template; 2],
    addresses: Vec<SocketAddr>,
    /// Deliveries before anything counts.
    pub warm: u64,
    next_number: AtomicU64,
    next_path: AtomicU32,
    /// What comes of loads that were counted. Noted by whoever takes arrivals from the sink.
    late: Mutex<Late>,
}

impl Flow {
    /// Starts all of it.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(target: &target::Options, options: &Options) -> anyhow::Result<Self> {
        Self::start_with(target, options, Size::ONE).await
    }

    /// The same, with so many of each service where that is a cluster.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(target: &target::Options, options: &Options, size: Size) -> anyhow::Result<Self> {
        options.check(target)?;
        let epoch = Epoch::start();
        let starting = bar("starting", 0);
        let sink = Sink::start(epoch, options.sink)?;
        let warm = match target.deployment {
            Deployment::Cluster => 100_000,
            Deployment::Standalone => 5_000,
        };
        let other = options.other.template()?;
        let (target, templates) = match other {
            Some(template) => {
                println!(
                    "receiving at http://{}/1, …/2, …: whoever sends there must have been told so",
                    sink.address()
                );
                let api = Api::new(vec![format!("http://{}", template.host)], "");
                let target = Target { api, running: Running::Elsewhere, pids: std::sync::Arc::default() };
                target.set_pids(options.other.pids()?);
                (target, [template.clone(), template])
            }
            None => {
                let (key, elsewhere) = (target.key.clone(), !target.url.is_empty());
                let target = Target::start(target, size, &[]).await?;
                if elsewhere {
                    target.set_pids(options.other.pids()?);
                }
                let of = |batch| Template::signalpost(target.api.address(), &key, batch);
                let templates = [of(false), of(true)];
                (target, templates)
            }
        };
        let mut addresses = Vec::new();
        for address in target.api.addresses() {
            let found = tokio::net::lookup_host(address).await.with_context(|| format!("the address {address}"))?;
            addresses.extend(found.take(1));
        }
        starting.finish_and_clear();
        Ok(Self {
            epoch,
            sink,
            target,
            warm: options.warm.unwrap_or(warm),
            options: options.clone(),
            templates,
            addresses,
            next_number: AtomicU64::new(FIRST_NUMBER),
            next_path: AtomicU32::new(DIRECT_PATH + 1),
            late: Mutex::default(),
        })
    }

    /// Whether another system is measured.
    pub fn is_other(&self) -> bool {
        !self.options.other.is_none()
    }

    /// Creates destinations, each at a path of its own; the n-th wants one type only. In another system they are there
    /// already.
    ///
    /// # Errors
    /// One is refused.
    pub async fn destinations(
        &self,
        count: usize,
        event_type: impl Fn(usize) -> String,
        further: &Value,
    ) -> anyhow::Result<Vec<Destination>> {
        let further = self.further(further);
        created(count, async |nth| {
            let (event_type, url) = (event_type(nth), self.next_url());
            let id = if self.is_other() {
                String::new()
            } else {
                self.target.api.create_destination(&url, &event_type, &further).await?
            };
            anyhow::Ok(Destination { id, event_type })
        })
        .await
    }

    /// An address of the sink that nobody has yet.
    fn next_url(&self) -> String {
        self.sink.url(self.next_path.fetch_add(1, Ordering::Relaxed))
    }

    /// What is asked for a destination besides its address and type.
    fn further(&self, of_scenario: &Value) -> Value {
        let mut further = of_scenario.clone();
        if let Some(most) = self.options.max_in_flight {
            further["max_in_flight"] = json!(most);
        }
        further
    }

    /// One destination.
    ///
    /// # Errors
    /// It is refused.
    pub async fn destination(&self, event_type: &str, further: &Value) -> anyhow::Result<Destination> {
        let mut created = self.destinations(1, |_| event_type.to_owned(), further).await?;
        created.pop().context("a destination")
    }

    /// Pauses a destination, or resumes it.
    ///
    /// # Errors
    /// It is refused, or another system is measured.
    pub async fn pause(&self, destination: &Destination, pause: bool) -> anyhow::Result<()> {
        if self.is_other() {
            bail!("this scenario pauses a destination, which is done over Signalpost's own API");
        }
        let path = format!("/v1/destinations/{}/{}", destination.id, if pause { "pause" } else { "resume" });
        self.target.api.call(Method::POST, &path, &json!({})).await.map(drop)
    }

    /// Requests for events of these types, which take turns, each of as many events as the options say.
    pub fn requests(&self, types: &[&str]) -> Requests {
        self.batches(types, self.options.batch)
    }

    /// The same with so many events in each.
    pub fn batches(&self, types: &[&str], batch: u64) -> Requests {
        let batch = if self.is_other() { 1 } else { batch };
        self.made(&self.templates[usize::from(batch > 1)], types, batch)
    }

    /// The same, one by one, each with its number as its idempotency key, which no other run has.
    pub fn keyed(&self, types: &[&str]) -> Requests {
        let mut template = self.templates[0].clone();
        template.headers.push(("idempotency-key".to_owned(), format!("loadtest-{}-{{id}}", self.epoch.tag())));
        self.made(&template, types, 1)
    }

    fn made(&self, template: &Template, types: &[&str], batch: u64) -> Requests {
        let size = usize::try_from(batch).unwrap_or(1);
        let sizes = &self.options.sizes;
        // Whole requests, and each type with each size.
        let events = VARIETY.max(types.len() * sizes.len()).next_multiple_of(size);
        let variants: Vec<Variant> = (0..events)
            .map(|nth| Variant {
                event_type: types[nth % types.len()].to_owned(),
                bytes: sizes[nth / types.len() % sizes.len()],
                seed: u64::try_from(nth).unwrap_or(0),
            })
            .collect();
        Requests { all: variants.chunks(size).map(|chunk| template.prepare(chunk)).collect(), batch }
    }
}

/// Creates so many of something, some at once, with a progress bar; in order.
///
/// # Errors
/// The first that is refused.
async fn created<T>(count: usize, create: impl AsyncFn(usize) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    let progress = bar("creating", count);
    let all = stream::iter(0..count).map(|nth| create(nth)).buffered(CREATING).inspect(|_| progress.inc(1));
    let created = all.try_collect().await;
    progress.finish_and_clear();
    created
}
