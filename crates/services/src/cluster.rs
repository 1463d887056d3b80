//! A whole Signalpost cluster on this machine: PostgreSQL, Redis, Kafka, and any number of our three services.

mod ground;
mod service;

use std::path::{Path, PathBuf};

use anyhow::bail;
pub use ground::Ground;
pub use service::{Kind, Service};
use tempfile::TempDir;

use crate::{Kafka, Postgres, Redis, free_port, process::Spec};

/// The operator's key of every cluster that is started here.
pub const ADMIN_KEY: &str = "operator-key-of-a-trial";

/// The keys of secrets at rest of its clusters.
pub const ENCRYPTION_KEYS: &str = "trial:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What a cluster consists of.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// The folder with our binaries (`target/debug`, `target/release`).
    pub binaries: PathBuf,
    /// Where the jars of Kafka are kept.
    pub cache: PathBuf,
    /// How many of each.
    pub apis: usize,
    /// How many of each.
    pub dispatchers: usize,
    /// How many of each.
    pub retries: usize,
    /// PostgreSQL with fsync.
    pub durable: bool,
    /// Settings of ours, for every service.
    pub env: Vec<(String, String)>,
}

/// How one service differs from the others of its cluster.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// The folder with its binary, where that is another than the cluster's: another version beside the others.
    pub binaries: Option<PathBuf>,
    /// Settings of its own. They win over those of the cluster.
    pub env: Vec<(String, String)>,
}

impl Own {
    /// Adds a setting.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }
}

/// A running cluster. Everything is stopped when it is dropped: ours first, then what they need.
#[derive(Debug)]
pub struct Cluster {
    /// Our API services.
    pub apis: Vec<Service>,
    /// Our dispatchers.
    pub dispatchers: Vec<Service>,
    /// Our retry services.
    pub retries: Vec<Service>,
    /// The bus.
    pub kafka: Kafka,
    /// The limits.
    pub redis: Redis,
    /// The store.
    pub postgres: Postgres,
    /// Logs. Removed in the end, unless a test fails.
    pub folder: TempDir,
    binaries: PathBuf,
    /// What all services are told.
    env: Vec<(String, String)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the logs of the services are kept in {}", self.folder.path().display());
        }
    }
}

impl Cluster {
    /// Starts everything and waits until each service listens.
    ///
    /// # Errors
    /// Something is missing or does not start; with the end of its log.
    pub fn start(spec: &ClusterSpec) -> anyhow::Result<Self> {
        Self::start_on(Ground::start(&spec.cache, spec.durable, &[])?, spec)
    }

    /// Migrates and starts our services on what runs already, and waits until each of them listens.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(ground: Ground, spec: &ClusterSpec) -> anyhow::Result<Self> {
        let Ground { kafka, redis, postgres } = ground;
        let folder = tempfile::Builder::new().prefix("signalpost-cluster-").tempdir()?;
        let mut env = vec![
            ("SIGNALPOST_DATABASE_URL".to_owned(), postgres.url()),
            ("SIGNALPOST_REDIS_URL".to_owned(), redis.url()),
            ("SIGNALPOST_KAFKA_BROKERS".to_owned(), kafka.brokers()),
            ("SIGNALPOST_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned()),
            ("SIGNALPOST_ENCRYPTION_KEYS".to_owned(), ENCRYPTION_KEYS.to_owned()),
            ("SIGNALPOST_EGRESS_ALLOW".to_owned(), "127.0.0.0/8,::1/128".to_owned()),
            ("SIGNALPOST_REQUIRE_HTTPS".to_owned(), "false".to_owned()),
            // How soon the partitions of a killed dispatcher move to the others.
            ("SIGNALPOST_KAFKA_SESSION_TIMEOUT_MS".to_owned(), "3000".to_owned()),
        ];
        env.extend(spec.env.iter().cloned());
        let mut cluster = Self {
            apis: Vec::new(),
            dispatchers: Vec::new(),
            retries: Vec::new(),
            kafka,
            redis,
            postgres,
            folder,
            binaries: spec.binaries.clone(),
            env,
        };
        cluster.migrate(&spec.binaries)?;
        for (kind, count) in [(Kind::Api, spec.apis), (Kind::Dispatcher, spec.dispatchers), (Kind::Retry, spec.retries)]
        {
            for _ in 0..count {
                cluster.launch(kind, &Own::default())?;
            }
        }
        for service in cluster.services() {
            service.wait_listening()?;
        }
        Ok(cluster)
    }

    /// `signalpost migrate`, as in that folder of binaries.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn migrate(&self, binaries: &Path) -> anyhow::Result<()> {
        self.command(binaries, "migrate")
    }

    /// A command of `signalpost` with the settings of the services, to its end.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn command(&self, binaries: &Path, name: &str) -> anyhow::Result<()> {
        self.ours(binaries, "signalpost", name)?.arg(name).run()
    }

    /// Starts one more service and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn add(&mut self, kind: Kind, own: &Own) -> anyhow::Result<&mut Service> {
        let service = self.launch(kind, own)?;
        service.wait_listening()?;
        Ok(service)
    }

    fn launch(&mut self, kind: Kind, own: &Own) -> anyhow::Result<&mut Service> {
        let port = free_port()?;
        let name = format!("{}-{}", kind.name(), self.of(kind).len());
        let binaries = own.binaries.as_ref().unwrap_or(&self.binaries);
        let mut spec = self
            .ours(binaries, &format!("signalpost-{}", kind.name()), &name)?
            .env("SIGNALPOST_LISTEN", format!("127.0.0.1:{port}"));
        spec.env.extend(own.env.iter().cloned());
        let service = Service::start(spec, port)?;
        let services = self.of(kind);
        services.push(service);
        let last = services.len() - 1;
        Ok(&mut services[last])
    }

    fn ours(&self, binaries: &Path, program: &str, name: &str) -> anyhow::Result<Spec> {
        let program = binary(binaries, program)?;
        Ok(Spec { env: self.env.clone(), ..Spec::new(name, program, self.folder.path()) })
    }

    /// Our services of one kind.
    pub fn of(&mut self, kind: Kind) -> &mut Vec<Service> {
        match kind {
            Kind::Api => &mut self.apis,
            Kind::Dispatcher => &mut self.dispatchers,
            Kind::Retry => &mut self.retries,
        }
    }

    /// All of our services.
    pub fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        self.apis.iter_mut().chain(&mut self.dispatchers).chain(&mut self.retries)
    }
}

fn binary(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let file = folder.join(name);
    if !file.is_file() {
        bail!("{} is not built: run `cargo xtask test` or `cargo xtask cluster`, which build it", file.display());
    }
    Ok(file)
}
