//! `cargo xtask dist`: the programs, compiled for what they do under load.
//!
//! Profile-guided optimisation (<https://doc.rust-lang.org/rustc/profile-guided-optimization.html>): the programs are built so that
//! they count how often each of their branches is taken, the load test makes them work, and they are built again by what they
//! counted. What runs seldom is moved away from what runs for every event: an event's way through Signalpost is long and
//! straight, and to fetch its instructions takes more time than to execute them. Code in C (SQLite, librdkafka) is as ever.
//!
//! Not part of CI: it builds everything twice, with link-time optimisation.

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

/// What the finished programs have to do before they are handed over.
const TRIAL: &[&str] = &["burst", "--count", "20000", "--warm", "5000"];

/// Where a program that counts writes to; `%p` is its process.
const COUNTS: &str = "LLVM_PROFILE_FILE";

#[derive(Debug, Args)]
pub struct Options {
    /// Also count in the services of a cluster: starts PostgreSQL, Kafka and Redis. Without it, the standalone program alone counts,
    /// and what only a cluster runs is compiled as ever.
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

impl Options {
    /// What is trained, and how many programs count in it at least: in a cluster also the one that migrates the database.
    fn deployments(&self) -> &[(&str, usize)] {
        if self.cluster { &[("standalone", 1), ("cluster", 4)] } else { &[("standalone", 1)] }
    }
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
    let out = options.out.as_ref().map_or_else(|| Ok(crate::target().join("trained")), absolute)?;
    let work = Work::begin(toolchain)?;

    eprintln!("1 of 4: programs that count");
    let built = work.build(options, &flag("-Cprofile-generate=", &work.counts))?;
    eprintln!("2 of 4: training");
    for (deployment, programs) in options.deployments() {
        for scenario in TRAINING {
            work.train(&built, deployment, *programs, scenario)?;
        }
    }
    let profile = work.merge()?;
    eprintln!("3 of 4: the programs");
    let built = work.build(options, &flag("-Cprofile-use=", &profile))?;
    eprintln!("4 of 4: a trial");
    for (deployment, _) in options.deployments() {
        load(&mut work.load_test(&built, deployment, TRIAL))?;
    }
    copy_programs(&built, &out)?;
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
        let rustc = || {
            let mut rustc = Command::new("rustc");
            rustc.current_dir(crate::root());
            rustc
        };
        let version = said(rustc().arg("-vV"))?;
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?.to_owned();
        let root = said(rustc().args(["--print", "sysroot"]))?;
        let profdata = Path::new(root.trim()).join("lib/rustlib").join(&host).join("bin/llvm-profdata");
        Ok(Self { host, profdata })
    }
}

/// Where everything in between is kept.
struct Work {
    toolchain: Toolchain,
    folder: PathBuf,
    /// What the programs counted: a file for each process.
    counts: PathBuf,
}

impl Work {
    /// What an earlier run counted is gone: it was other code.
    fn begin(toolchain: Toolchain) -> anyhow::Result<Self> {
        let folder = crate::target().join("dist-work");
        let counts = folder.join("counts");
        if counts.is_dir() {
            fs::remove_dir_all(&counts)?;
        }
        fs::create_dir_all(&counts)?;
        Ok(Self { toolchain, folder, counts })
    }

    /// Builds the programs with one more flag of the compiler; the folder with them, until the next ones are built.
    fn build(&self, options: &Options, flag: &OsStr) -> anyhow::Result<PathBuf> {
        let target = self.folder.join("target");
        let mut cargo = crate::cargo();
        if options.auditable {
            cargo.arg("auditable");
        }
        // With a target named, the flags are not for build scripts and macros, which would count, too.
        cargo.args(["build", "--locked", "--profile", "dist", "--target", &self.toolchain.host]);
        cargo.args(crate::PROGRAMS).args(["--features", &options.features]);
        let encoded = std::env::var_os("CARGO_ENCODED_RUSTFLAGS");
        let flags = flags(encoded, &std::env::var("RUSTFLAGS").unwrap_or_default(), flag);
        let status = cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", flags).status()?;
        anyhow::ensure!(status.success(), "the programs could not be built");
        Ok(target.join(&self.toolchain.host).join("dist"))
    }

    /// A scenario of the load test, which fails where an event is lost.
    fn load_test(&self, programs: &Path, deployment: &str, scenario: &[&str]) -> Command {
        eprintln!("{deployment}: {}", scenario.join(" "));
        let mut cargo = crate::cargo();
        cargo
            .args(["run", "--quiet", "--locked", "--release", "--package", "signalpost-loadtest", "--"])
            .args(scenario)
            .args(["--deployment", deployment])
            .arg("--binaries")
            .arg(programs)
            .arg("--cache")
            .arg(crate::target().join("services"))
            .arg("--results")
            .arg(self.folder.join("results"));
        cargo
    }

    /// Runs a scenario with programs that count.
    fn train(&self, counting: &Path, deployment: &str, programs: usize, scenario: &[&str]) -> anyhow::Result<()> {
        let before = self.counted()?.len();
        load(self.load_test(counting, deployment, scenario).env(COUNTS, self.counts.join("%p-%m.profraw")))?;
        let counted = self.counted()?.len() - before;
        anyhow::ensure!(
            counted >= programs,
            "{counted} of {programs} programs told what they had counted: were they killed as they did not end?"
        );
        Ok(())
    }

    fn counted(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(&self.counts)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
    }

    /// What was never called is left out (`--sparse`): it is not known to be seldom, as no training does all that users do.
    fn merge(&self) -> anyhow::Result<PathBuf> {
        let profile = self.folder.join("merged.profdata");
        let mut merge = Command::new(&self.toolchain.profdata);
        said(merge.args(["merge", "--sparse", "--output"]).arg(&profile).args(self.counted()?))?;
        Ok(profile)
    }
}

fn load(load_test: &mut Command) -> anyhow::Result<()> {
    anyhow::ensure!(load_test.status()?.success(), "the load test failed: see above");
    Ok(())
}

fn copy_programs(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for program in PROGRAMS {
        // Under its name it is complete, and a program that runs is not written into.
        let (built, partial) = (from.join(program), to.join(format!("{program}.partial")));
        fs::copy(&built, &partial).with_context(|| format!("{} could not be copied", built.display()))?;
        fs::rename(&partial, to.join(program))?;
    }
    Ok(())
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

/// The flags that the environment has, and one more, as cargo takes them where a path may have blanks. What files of cargo's
/// configuration have is not used beside them.
fn flags(encoded: Option<OsString>, plain: &str, more: &OsStr) -> OsString {
    let mut flags = encoded.unwrap_or_else(|| plain.split_whitespace().collect::<Vec<_>>().join("\x1f").into());
    if !flags.is_empty() {
        flags.push("\x1f");
    }
    flags.push(more);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_added_to_those_that_are_set() {
        let more = flag("-Cprofile-use=", Path::new("/a folder/merged"));
        assert_eq!(flags(None, "", &more), "-Cprofile-use=/a folder/merged");
        assert_eq!(flags(None, " -Ca -Cb ", &more), "-Ca\x1f-Cb\x1f-Cprofile-use=/a folder/merged");
        assert_eq!(flags(Some("-L/x y".into()), "-Ca", &more), "-L/x y\x1f-Cprofile-use=/a folder/merged");
    }

    #[test]
    fn programs_are_copied_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        for program in PROGRAMS {
            fs::write(from.join(program), program).unwrap();
        }
        copy_programs(&from, &to).unwrap();
        for program in PROGRAMS {
            assert_eq!(fs::read_to_string(to.join(program)).unwrap(), program);
        }
        assert_eq!(fs::read_dir(&to).unwrap().count(), PROGRAMS.len());
        fs::remove_file(from.join("signalpost-api")).unwrap();
        let error = copy_programs(&from, &to).unwrap_err();
        assert!(error.to_string().contains("signalpost-api"), "{error}");
    }
}
