//! A whole Signalpost cluster on this machine: PostgreSQL, Redis, Kafka, and any number of our three services.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::{
    Kafka, Postgres, Process, Redis, free_port, kafka,
    process::{Spec, port_answers},
};

/// The operator's key of every cluster that is started here.
pub const ADMIN_KEY: &str = "operator-key-of-a-trial";

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

/// One of our services: a spec that can be started again, and its process while it runs.
#[derive(Debug)]
pub struct Service {
    spec: Spec,
    /// The port of its API, or of its health and metrics.
    pub port: u16,
    /// None while it is stopped.
    pub process: Option<Process>,
}

impl Service {
    fn start(spec: Spec, port: u16) -> anyhow::Result<Self> {
        let process = Some(spec.start()?);
        Ok(Self { spec, port, process })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its drained end. Its exit code must be 0.
    ///
    /// # Errors
    /// It does not stop, or with another code.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.stop(Duration::from_secs(60))?;
        if !status.success() {
            bail!("{} ended with {status}; its log ends:\n{}", self.spec.name, process.log_tail());
        }
        Ok(())
    }

    /// Starts it again and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = Some(self.spec.start()?);
        self.wait_listening()
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// It ended.
    pub fn wait_listening(&mut self) -> anyhow::Result<()> {
        let port = self.port;
        let process = self.process.as_mut().context("it is stopped")?;
        process.wait_until(Duration::from_secs(30), || port_answers(port))
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
    /// Logs.
    pub folder: TempDir,
}

impl Cluster {
    /// Starts everything and waits until each service listens.
    ///
    /// # Errors
    /// Something is missing or does not start; with the end of its log.
    pub fn start(spec: &ClusterSpec) -> anyhow::Result<Self> {
        let jars = kafka::jars(&spec.cache)?;
        let folder = tempfile::Builder::new().prefix("signalpost-cluster-").tempdir()?;
        let postgres = Postgres::start(spec.durable)?;
        let redis = Redis::start()?;
        let kafka = Kafka::start(&jars)?;
        let mut env = vec![
            ("SIGNALPOST_DATABASE_URL".to_owned(), postgres.url()),
            ("SIGNALPOST_REDIS_URL".to_owned(), redis.url()),
            ("SIGNALPOST_KAFKA_BROKERS".to_owned(), kafka.brokers()),
            ("SIGNALPOST_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned()),
            ("SIGNALPOST_EGRESS_ALLOW".to_owned(), "127.0.0.0/8,::1/128".to_owned()),
            ("SIGNALPOST_REQUIRE_HTTPS".to_owned(), "false".to_owned()),
            // How soon the partitions of a killed dispatcher move to the others.
            ("SIGNALPOST_KAFKA_SESSION_TIMEOUT_MS".to_owned(), "3000".to_owned()),
        ];
        env.extend(spec.env.iter().cloned());
        let ours = |program: &str, name: &str| -> anyhow::Result<Spec> {
            let program = binary(&spec.binaries, program)?;
            Ok(Spec { env: env.clone(), ..Spec::new(name, program, folder.path()) })
        };
        ours("signalpost", "migrate")?.arg("migrate").run()?;
        let services = |kind: &str, count: usize| -> anyhow::Result<Vec<Service>> {
            (0..count)
                .map(|index| {
                    let port = free_port()?;
                    let spec = ours(&format!("signalpost-{kind}"), &format!("{kind}-{index}"))?
                        .env("SIGNALPOST_LISTEN", format!("127.0.0.1:{port}"));
                    Service::start(spec, port)
                })
                .collect()
        };
        let mut cluster = Self {
            apis: services("api", spec.apis)?,
            dispatchers: services("dispatcher", spec.dispatchers)?,
            retries: services("retry", spec.retries)?,
            kafka,
            redis,
            postgres,
            folder,
        };
        for service in cluster.services() {
            service.wait_listening()?;
        }
        Ok(cluster)
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
