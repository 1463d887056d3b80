//! What is measured: a standalone binary or a native cluster that is started for it, or something that runs already.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use signalpost_services::{Cluster, ClusterSpec, Kind, Process, Service, cluster::ADMIN_KEY, free_port, process::Spec};
use tempfile::TempDir;

use crate::{
    address::Address,
    client::Api,
    created::Created,
    processes::{Pids, cpu, cpu_of_all},
    run::bar,
};

/// What `standalone` says when it listens.
const READY: &str = " is ready at ";
/// How long an API may take until it is ready.
const STARTING: Duration = Duration::from_secs(60);
/// What is deleted at once.
const DELETING: usize = 16;

/// How a Signalpost is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deployment {
    /// One process.
    Standalone,
    /// PostgreSQL, Kafka, Redis and our services.
    Cluster,
}

/// Where a Signalpost comes from.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What is started for the measurement.
    #[arg(long, value_enum, default_value = "standalone", global = true)]
    pub deployment: Deployment,
    /// Measures what runs already, by the address of its API (several: comma-separated); nothing is started, and what
    /// needs a process to be killed or stopped is refused. It must be allowed to send to 127.0.0.1. What is created there is
    /// deleted at the end.
    #[arg(long, value_delimiter = ',', global = true, value_name = "http://HOST:PORT", value_parser = Address::base)]
    pub url: Vec<Address>,
    /// The operator's key of what runs already.
    #[arg(long, default_value = ADMIN_KEY, global = true)]
    pub key: String,
    /// The folder with the binaries of Signalpost; default: where this program lies.
    #[arg(long, global = true)]
    pub binaries: Option<PathBuf>,
    /// Where the jars of Kafka are kept; default: `services` beside the folder of the binaries.
    #[arg(long, global = true)]
    pub cache: Option<PathBuf>,
    /// PostgreSQL without fsync: for trying only. For a cluster.
    #[arg(long, global = true)]
    pub no_fsync: bool,
    /// A setting for what is started, as `SIGNALPOST_NAME=value`; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE", global = true)]
    pub env: Vec<String>,
    /// What was created in what runs already.
    #[arg(skip)]
    pub created: Created,
}

impl Options {
    /// Whether every option means something for what is measured.
    ///
    /// # Errors
    /// One does not, in words.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.url.is_empty() {
            return self.starts_nothing("--url");
        }
        ensure!(
            !self.no_fsync || self.deployment == Deployment::Cluster,
            "--no-fsync is for PostgreSQL, which --deployment standalone has not"
        );
        Ok(())
    }

    /// Whether no option is for what is started.
    ///
    /// # Errors
    /// One is, in words.
    pub fn starts_nothing(&self, option: &str) -> anyhow::Result<()> {
        let for_starting =
            [("--env", !self.env.is_empty()), ("--no-fsync", self.no_fsync), ("--binaries", self.binaries.is_some())];
        for (name, given) in for_starting {
            ensure!(!given, "{name} is for what is started, and with {option} nothing is");
        }
        Ok(())
    }

    /// Deletes what was created in what runs already; of what cannot be deleted it says so.
    pub async fn clean_up(&self) {
        let paths = self.created.take();
        if paths.is_empty() {
            return;
        }
        let api = Api::new(self.url.iter().map(Address::origin).collect(), &self.key);
        let progress = bar("deleting", paths.len());
        let deleting = stream::iter(&paths).map(|path| api.delete(path)).buffer_unordered(DELETING);
        let failed = deleting.filter_map(async |deleted| {
            progress.inc(1);
            deleted.err()
        });
        let failed: Vec<anyhow::Error> = failed.collect().await;
        progress.finish_and_clear();
        if let Some(first) = failed.first() {
            eprintln!("{} of {} that were created could not be deleted: {first:#}", failed.len(), paths.len());
        }
    }

    /// The folder with the binaries.
    ///
    /// # Errors
    /// None was named, and it is not known where this program lies.
    pub fn binaries(&self) -> anyhow::Result<PathBuf> {
        if let Some(binaries) = &self.binaries {
            return Ok(binaries.clone());
        }
        let here = std::env::current_exe()?;
        Ok(here.parent().context("the folder of this program")?.to_owned())
    }

    /// Where the jars of Kafka are kept.
    ///
    /// # Errors
    /// There is no folder beside that of the binaries.
    pub fn cache(&self) -> anyhow::Result<PathBuf> {
        let beside = self.binaries()?.parent().map(|folder| folder.join("services"));
        self.cache.clone().or(beside).context("--cache is needed")
    }
}

/// How many of each service a cluster has.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// API services.
    pub apis: usize,
    /// Dispatchers.
    pub dispatchers: usize,
    /// Retry services.
    pub retries: usize,
}

impl Size {
    /// One of each.
    pub const ONE: Self = Self { apis: 1, dispatchers: 1, retries: 1 };
}

/// A standalone Signalpost, as a person starts it.
#[derive(Debug)]
pub struct Standalone {
    /// None while it is stopped.
    pub process: Option<Process>,
    spec: Spec,
    starts: usize,
    // Declared last: removed after the process has ended.
    folder: TempDir,
}

impl Standalone {
    fn start(mut spec: Spec, folder: TempDir) -> anyhow::Result<Self> {
        spec.folder = folder.path().to_owned();
        let mut standalone = Self { process: None, spec, starts: 0, folder };
        standalone.restart()?;
        Ok(standalone)
    }

    /// Starts it (again) and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut process = self.spec.start()?;
        self.starts += 1;
        process.wait_for_log(READY, self.starts, Duration::from_secs(60))?;
        self.process = Some(process);
        Ok(())
    }

    /// The files of its data and their sizes in bytes. Those of the log that is written ahead, and what is shared in
    /// memory, come and go, so they are told by themselves.
    ///
    /// # Errors
    /// They cannot be looked at.
    pub fn files(&self) -> anyhow::Result<[(&'static str, u64); 2]> {
        let (mut data, mut ahead) = (0, 0);
        let mut left = vec![self.folder.path().to_owned()];
        while let Some(folder) = left.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if meta.is_dir() {
                    left.push(entry.path());
                } else if name.ends_with("-wal") || name.ends_with("-shm") {
                    ahead += meta.len();
                } else {
                    data += meta.len();
                }
            }
        }
        Ok([("data", data), ("written ahead", ahead)])
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            // It is counted by its greeting, so a start that was killed before it may not count.
            Some(mut process) => process.kill().map(drop),
            None => Ok(()),
        }
    }
}

/// What runs.
#[derive(Debug)]
pub enum Running {
    /// Started by us.
    Standalone(Box<Standalone>),
    /// Started by us.
    Cluster(Box<Cluster>),
    /// Not started by us.
    Elsewhere,
}

/// What is measured. Started and stopped by the thread that holds it, which must live as long.
#[derive(Debug)]
pub struct Target {
    /// Its API.
    pub api: Api,
    /// Its processes.
    pub running: Running,
    /// For samplers; see [`Self::renew_pids`].
    pub pids: Pids,
}

impl Target {
    /// Starts what the options say and waits until it is ready. `env`: what the scenario needs of it.
    ///
    /// # Errors
    /// Something is not built, not installed, or does not start.
    pub async fn start(options: &Options, size: Size, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        options.check()?;
        let (api, running) = if options.url.is_empty() {
            tokio::task::block_in_place(|| start(options, size, env))?
        } else {
            let api = Api::new(options.url.iter().map(Address::origin).collect(), &options.key);
            (api.noting(options.created.clone()), Running::Elsewhere)
        };
        let target = Self { api, running, pids: Arc::default() };
        target.renew_pids();
        target.ready().await?;
        Ok(target)
    }

    /// Waits until every API service is ready.
    ///
    /// # Errors
    /// That takes more than a minute.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ready = async {
            while !self.api.is_ready().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let ready = tokio::time::timeout(STARTING, ready).await;
        let addresses = || self.api.addresses().collect::<Vec<_>>().join(", ");
        ready.with_context(|| format!("the API ({}) was not ready within {STARTING:?}", addresses()))
    }

    /// What is measured, in a word.
    pub fn name(&self) -> &'static str {
        match self.running {
            Running::Standalone(_) => "standalone",
            Running::Cluster(_) => "cluster",
            Running::Elsewhere => "running",
        }
    }

    /// The cluster, for scenarios that need one of ours.
    ///
    /// # Errors
    /// It is none.
    pub fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        match &mut self.running {
            Running::Cluster(cluster) => Ok(cluster),
            _ => bail!("this scenario needs a cluster that it starts itself: --deployment cluster, without --url"),
        }
    }

    /// Tells the samplers of the processes as they are now: after every restart.
    pub fn renew_pids(&self) {
        let mut pids: Vec<(String, u32)> = Vec::new();
        match &self.running {
            Running::Standalone(standalone) => {
                pids.extend(standalone.process.iter().map(|process| ("standalone".to_owned(), process.id())));
            }
            Running::Cluster(cluster) => {
                let ours = cluster.apis.iter().chain(&cluster.dispatchers).chain(&cluster.retries);
                pids.extend(ours.filter_map(named));
                pids.push(("postgres".to_owned(), cluster.postgres.process.id()));
                pids.push(("kafka".to_owned(), cluster.kafka.process.id()));
                pids.push(("redis".to_owned(), cluster.redis.process.id()));
            }
            // Whoever named it said what runs there, if anybody.
            Running::Elsewhere => return,
        }
        self.set_pids(pids);
    }

    /// Tells the samplers of other processes.
    pub fn set_pids(&self, pids: Vec<(String, u32)>) {
        *self.pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = pids;
    }

    /// Waits until its processes use less than a fifth of a core together, at most that long: so that one run does not
    /// pay for the end of another. Where nothing is known of them, some seconds.
    pub async fn quiet(&self, at_most: Duration) {
        if cpu(&self.pids).is_empty() {
            tokio::time::sleep(at_most.min(Duration::from_secs(10))).await;
            return;
        }
        let mut before = cpu_of_all(&self.pids);
        let mut calm = 0;
        for _ in 0..at_most.as_secs() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = cpu_of_all(&self.pids);
            calm = if now - before < 0.2 { calm + 1 } else { 0 };
            before = now;
            if calm >= 2 {
                return;
            }
        }
    }
}

fn named(service: &Service) -> Option<(String, u32)> {
    Some((service.name().to_owned(), service.process.as_ref()?.id()))
}

fn start(options: &Options, size: Size, env: &[(&str, &str)]) -> anyhow::Result<(Api, Running)> {
    let binaries = options.binaries()?;
    let mut settings: Vec<(String, String)> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for setting in &options.env {
        let (name, value) = setting.split_once('=').with_context(|| format!("--env {setting}: NAME=VALUE"))?;
        settings.push((name.to_owned(), value.to_owned()));
    }
    match options.deployment {
        Deployment::Standalone => {
            let program = binaries.join("signalpost");
            if !program.is_file() {
                bail!("{} is not there: cargo build --release -p signalpost", program.display());
            }
            let port = free_port()?;
            let folder = tempfile::Builder::new().prefix("signalpost-loadtest-").tempdir()?;
            let mut spec = Spec::new("standalone", program, folder.path())
                .arg("standalone")
                .env("SIGNALPOST_LISTEN", format!("127.0.0.1:{port}"))
                .env("SIGNALPOST_ADMIN_KEY", ADMIN_KEY)
                .env("SIGNALPOST_EGRESS_ALLOW", "127.0.0.0/8")
                .env("SIGNALPOST_REQUIRE_HTTPS", "false");
            spec.env.extend(settings);
            let standalone = Standalone::start(spec, folder)?;
            let api = Api::new(vec![format!("http://127.0.0.1:{port}")], ADMIN_KEY);
            Ok((api, Running::Standalone(Box::new(standalone))))
        }
        Deployment::Cluster => {
            let cache = options.cache()?;
            let cluster = Cluster::start(&ClusterSpec {
                binaries,
                cache,
                apis: size.apis,
                dispatchers: size.dispatchers,
                retries: size.retries,
                durable: !options.no_fsync,
                env: settings,
            })
            .context("is it built? cargo build --release -p signalpost -p signalpost-cluster -F signalpost/cluster")?;
            let api = Api::new(cluster.apis.iter().map(Service::url).collect(), ADMIN_KEY);
            Ok((api, Running::Cluster(Box::new(cluster))))
        }
    }
}

/// Stops one service of a cluster in order and starts it again.
///
/// # Errors
/// It did not stop with exit code 0, or does not start.
pub fn roll(cluster: &mut Cluster, kind: Kind, index: usize) -> anyhow::Result<()> {
    let service = &mut cluster.of(kind)[index];
    service.stop()?;
    service.restart()
}
