//! A real Apache Kafka of our own: one broker in KRaft mode on the JDK, its jars fetched by Maven once.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    free_port,
    process::{Process, Spec, find_program},
};

const POM: &str = include_str!("../kafka/pom.xml");

/// What its log says when it can be connected to.
const READY: &str = "Kafka Server started";

/// How long it may take to start, on a busy machine.
const START_TIME: Duration = Duration::from_secs(90);

/// For a broker that lives for minutes and shares few processors: the optimising compiler (C2) would take more of them, for as
/// long as that, than its code gives back. A broker in production is not to be run so.
const JVM: &[&str] =
    &["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"];

/// Any base64 UUID does: nobody else joins.
const CLUSTER_ID: &str = "c2lnbmFscG9zdC10ZXN0cw";

/// A running broker. Stopped, and its data removed, when dropped.
#[derive(Debug)]
pub struct Kafka {
    /// The broker process.
    pub process: Process,
    spec: Spec,
    port: u16,
    folder: TempDir,
}

/// The folder with the jars; fetches them where they are not there yet. Kept in `cache`, which builds share.
///
/// # Errors
/// There is no Maven, or it cannot reach its repository.
pub fn jars(cache: &Path) -> anyhow::Result<PathBuf> {
    let folder = cache.join("kafka-3.9.1");
    if folder.join(".complete").is_file() {
        return Ok(folder);
    }
    let maven = find_program("mvn").context("Maven is not installed (`mvn` was not found)")?;
    fs::create_dir_all(&folder)?;
    let project = tempfile::Builder::new().prefix("signalpost-kafka-").tempdir()?;
    fs::write(project.path().join("pom.xml"), POM)?;
    Spec::new("mvn", maven, project.path())
        .args(&["--quiet", "--batch-mode", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .run()
        .context("the jars of Apache Kafka could not be fetched")?;
    fs::write(folder.join(".complete"), "")?;
    Ok(folder)
}

/// A further listener of the broker. A broker tells its clients where to reach it, so a proxy needs a listener of its own
/// whose clients are told the proxy's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where the broker listens.
    pub port: u16,
    /// Where its clients are told to connect to.
    pub advertised: u16,
}

impl Kafka {
    /// Starts a broker with the jars of a folder.
    ///
    /// # Errors
    /// There is no JDK, or the broker does not start.
    pub fn start(jars: &Path) -> anyhow::Result<Self> {
        Self::start_with(jars, &[])
    }

    /// Starts a broker that has further listeners.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(jars: &Path, further: &[Listener]) -> anyhow::Result<Self> {
        let java = find_program("java").context("no JDK is installed (`java` was not found)")?;
        let folder = tempfile::Builder::new().prefix("signalpost-kafka-").tempdir()?;
        let (port, controller_port) = (free_port()?, free_port()?);
        fs::write(folder.path().join("server.properties"), properties(folder.path(), port, controller_port, further))?;
        fs::write(folder.path().join("log4j.properties"), LOG4J)?;
        let spec = Spec { stop_signal: Signal::SIGTERM, ..Spec::new("kafka", java, folder.path()) }
            .args(JVM)
            .arg(format!("-Dlog4j.configuration=file:{}", folder.path().join("log4j.properties").display()))
            .arg("-cp")
            .arg(format!("{}/*", jars.display()));
        let format = Spec { name: "kafka-format".to_owned(), ..spec.clone() }.args(&[
            "kafka.tools.StorageTool",
            "format",
            "--config",
            "server.properties",
            "--cluster-id",
            CLUSTER_ID,
        ]);
        let spec = spec.args(&["kafka.Kafka", "server.properties"]);
        format.run()?;
        let process = spec.start()?;
        let mut kafka = Self { process, spec, port, folder };
        kafka.process.wait_for_log(READY, 1, START_TIME)?;
        Ok(kafka)
    }

    /// Its address.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the broker in order (SIGTERM); its data stays.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop(Duration::from_secs(60)).map(drop)
    }

    /// Kills the broker; its data stays.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn halt(&mut self) -> anyhow::Result<()> {
        self.process.kill().map(drop)
    }

    /// Removes all its data: topics, offsets, groups. Only while it is halted; the next start is that of a new cluster.
    ///
    /// # Errors
    /// It cannot be removed, or not be formatted anew.
    pub fn lose_data(&mut self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.folder.path().join("data"))?;
        let mut format = self.spec.clone();
        format.name = "kafka-format".to_owned();
        format.args.truncate(format.args.len() - 2);
        format
            .args(&["kafka.tools.StorageTool", "format", "--config", "server.properties", "--cluster-id", CLUSTER_ID])
            .run()
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let starts = self.process.log_count(READY);
        self.process = self.spec.start()?;
        self.process.wait_for_log(READY, starts + 1, START_TIME)
    }
}

fn properties(folder: &Path, port: u16, controller_port: u16, further: &[Listener]) -> String {
    let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
    for (index, listener) in further.iter().enumerate() {
        listeners.push_str(&format!(",FURTHER{index}://127.0.0.1:{}", listener.port));
        advertised.push_str(&format!(",FURTHER{index}://127.0.0.1:{}", listener.advertised));
        protocols.push_str(&format!(",FURTHER{index}:PLAINTEXT"));
    }
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=2
log.cleaner.enable=false
",
        folder.join("data").display()
    )
}

const LOG4J: &str = "log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
";
