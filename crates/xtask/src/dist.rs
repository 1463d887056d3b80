//! `cargo xtask dist`: the programs as they are shipped, compiled for what they do under load.
//!
//! Profile-guided optimisation (<https://doc.rust-lang.org/rustc/profile-guided-optimization.html>): the programs are built so that
//! they count how often each of their branches is taken, the load test makes them work, and they are built again by what they
//! counted. What runs seldom is moved away from what runs for every event; an event's way through Signalpost is long and
//! straight, and to fetch its instructions takes more time than to execute them.
//!
//! Not part of CI: it builds everything twice, with link-time optimisation, and a third time the load test.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf, absolute},
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use clap::Args;
use signalpost_services::requirements::{self, Requirement};

/// All that is shipped.
const PROGRAMS: [&str; 4] = ["signalpost", "signalpost-api", "signalpost-dispatcher", "signalpost-retry"];

/// What the programs do while they count: what they are for, and some of what goes wrong. Numbers are such that no step takes long
/// with programs that count, which are a third as fast.
const TRAINING: [&[&str]; 7] = [
    &["burst", "--count", "30000", "--warm", "1000"],
    &["burst", "--count", "60000", "--warm", "1000", "--batch", "100"],
    &["fanout", "--deliveries", "30000", "--warm", "1000", "--runs", "1"],
    &["backlog", "--waiting", "20000", "--warm", "1000", "--runs", "1"],
    &["retry-storm", "--count", "5000", "--warm", "1000"],
    &["idempotent", "--warm", "1000"],
    &["sustained", "--rate", "300", "--warm", "1000"],
];

/// Every event that the finished programs deliver here is looked for by its id.
const TRIAL: &[&str] = &["burst", "--count", "20000", "--warm", "5000"];

#[derive(Debug, Args)]
pub struct Options {
    /// Also count in the services of a cluster: starts PostgreSQL, Kafka and Redis. Without, the cluster's programs are compiled by
    /// what they share with the standalone one.
    #[arg(long)]
    cluster: bool,
    /// Features of the programs.
    #[arg(long, default_value = "signalpost/cluster,signalpost-bus-kafka/tls")]
    features: String,
    /// Write into each program what it was built of (`cargo auditable`, which must be installed).
    #[arg(long)]
    auditable: bool,
    /// Where the programs are put; default: `trained` in the target directory.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let toolchain = Toolchain::find()?;
    if !toolchain.profdata.is_file() {
        eprintln!("please install: llvm-profdata of this Rust (rustup component add llvm-tools)");
        return Ok(ExitCode::from(crate::MISSING));
    }
    let needed: &[Requirement] = if options.cluster { &Requirement::ALL } else { &[Requirement::Make] };
    if let Err(line) = requirements::ensure(needed) {
        eprintln!("{line}");
        return Ok(ExitCode::from(crate::MISSING));
    }
    let work = Work::begin(toolchain)?;
    let out = absolute(options.out.clone().unwrap_or_else(|| crate::target().join("trained")))?;

    eprintln!("1 of 5: the load test");
    let load_test = work.load_test()?;
    eprintln!("2 of 5: programs that count");
    let counting = work.folder.join("counting");
    work.build(options, &flag("-Cprofile-generate=", &work.counts), &counting)?;
    eprintln!("3 of 5: training");
    let deployments: &[&str] = if options.cluster { &["standalone", "cluster"] } else { &["standalone"] };
    for deployment in deployments {
        for step in TRAINING {
            work.load(&load_test, &counting, deployment, step)?;
        }
    }
    let profile = work.merge()?;
    eprintln!("4 of 5: the programs");
    work.build(options, &flag("-Cprofile-use=", &profile), &out)?;
    eprintln!("5 of 5: a trial");
    for deployment in deployments {
        work.load(&load_test, &out, deployment, TRIAL)?;
    }
    for program in PROGRAMS {
        println!("{}", out.join(program).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What belongs to the compiler that builds.
struct Toolchain {
    host: String,
    profdata: PathBuf,
}

impl Toolchain {
    fn find() -> anyhow::Result<Self> {
        let version = said(Command::new("rustc").arg("-vV"))?;
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?.to_owned();
        let root = said(Command::new("rustc").args(["--print", "sysroot"]))?;
        let profdata = Path::new(root.trim()).join("lib/rustlib").join(&host).join("bin/llvm-profdata");
        Ok(Self { host, profdata })
    }
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?} could not be run"))?;
    anyhow::ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

/// Where everything in between is kept.
struct Work {
    toolchain: Toolchain,
    folder: PathBuf,
    /// What the programs counted.
    counts: PathBuf,
}

impl Work {
    /// What an earlier run counted is gone: it was other code.
    fn begin(toolchain: Toolchain) -> anyhow::Result<Self> {
        let folder = absolute(crate::target())?.join("dist-work");
        let counts = folder.join("counts");
        if counts.is_dir() {
            fs::remove_dir_all(&counts)?;
        }
        fs::create_dir_all(&counts)?;
        Ok(Self { toolchain, folder, counts })
    }

    /// Builds the load test, which counts nothing.
    fn load_test(&self) -> anyhow::Result<PathBuf> {
        let status =
            crate::cargo().args(["build", "--locked", "--release", "--package", "signalpost-loadtest"]).status()?;
        anyhow::ensure!(status.success(), "the load test could not be built");
        Ok(absolute(crate::target())?.join("release/signalpost-loadtest"))
    }

    /// Builds the programs with one more flag of the compiler, and puts them into `out`.
    fn build(&self, options: &Options, flag: &OsStr, out: &Path) -> anyhow::Result<()> {
        let target = self.folder.join("target");
        let mut cargo = crate::cargo();
        if options.auditable {
            cargo.arg("auditable");
        }
        // With a target named, the flags are not for build scripts and macros, which would count, too.
        cargo.args(["build", "--locked", "--profile", "dist", "--target", &self.toolchain.host]);
        cargo.args(["--package", "signalpost", "--package", "signalpost-cluster", "--features", &options.features]);
        let status = cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", flags(flag)).status()?;
        anyhow::ensure!(status.success(), "the programs could not be built");
        fs::create_dir_all(out)?;
        for program in PROGRAMS {
            let built = target.join(&self.toolchain.host).join("dist").join(program);
            // Not over a program that runs.
            let partial = out.join(format!("{program}.partial"));
            fs::copy(&built, &partial).with_context(|| format!("{} could not be copied", built.display()))?;
            fs::rename(&partial, out.join(program))?;
        }
        Ok(())
    }

    /// Runs a scenario, which fails where an event is lost or comes twice.
    fn load(&self, load_test: &Path, programs: &Path, deployment: &str, scenario: &[&str]) -> anyhow::Result<()> {
        eprintln!("{deployment}: {}", scenario.join(" "));
        let status = Command::new(load_test)
            .args(scenario)
            .args(["--deployment", deployment])
            .arg("--binaries")
            .arg(programs)
            .arg("--cache")
            .arg(crate::target().join("services"))
            .arg("--results")
            .arg(self.folder.join("results"))
            .status()?;
        anyhow::ensure!(status.success(), "the load test failed: {deployment}, {}", scenario.join(" "));
        Ok(())
    }

    fn merge(&self) -> anyhow::Result<PathBuf> {
        let counted: Vec<PathBuf> =
            fs::read_dir(&self.counts)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        anyhow::ensure!(!counted.is_empty(), "the programs counted nothing in {}", self.counts.display());
        let profile = self.folder.join("merged.profdata");
        said(Command::new(&self.toolchain.profdata).args(["merge", "--output"]).arg(&profile).args(&counted))?;
        Ok(profile)
    }
}

/// The flags that the user set, and one more, as cargo takes them: a path may have blanks.
fn flags(more: &OsStr) -> OsString {
    let mut flags = std::env::var_os("CARGO_ENCODED_RUSTFLAGS").unwrap_or_else(|| {
        let set = std::env::var("RUSTFLAGS").unwrap_or_default();
        set.split_whitespace().collect::<Vec<_>>().join("\x1f").into()
    });
    if !flags.is_empty() {
        flags.push("\x1f");
    }
    flags.push(more);
    flags
}
