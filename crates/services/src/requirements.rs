//! What is missing on this machine, and getting it: installed with apt as root on Debian and its kin, else named.

use std::path::Path;

use nix::unistd::Uid;

use crate::{
    postgres,
    process::{Spec, find_program},
};

/// Something that tests need from the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// The server programs of PostgreSQL, 15 or later.
    Postgres,
    /// `redis-server`.
    Redis,
    /// A Java runtime, 17 or later.
    Java,
    /// `mvn`, which fetches the jars of Kafka.
    Maven,
    /// `make` and a C++ compiler, which build librdkafka.
    Make,
}

impl Requirement {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Redis, Self::Java, Self::Maven, Self::Make];

    /// Whether it is there.
    pub fn is_there(self) -> bool {
        match self {
            Self::Postgres => postgres::programs().is_some(),
            Self::Redis => find_program("redis-server").is_some(),
            Self::Java => find_program("java").is_some(),
            Self::Maven => find_program("mvn").is_some(),
            Self::Make => {
                find_program("make").is_some() && find_program("g++").or_else(|| find_program("c++")).is_some()
            }
        }
    }

    /// The Debian packages that bring it.
    pub const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgresql"],
            Self::Redis => &["redis-server"],
            Self::Java => &["openjdk-17-jre-headless"],
            Self::Maven => &["maven"],
            Self::Make => &["make", "g++"],
        }
    }

    /// What a person installs elsewhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL 15 or later (initdb, postgres)",
            Self::Redis => "Redis (redis-server)",
            Self::Java => "a JDK 17 or later (java)",
            Self::Maven => "Maven (mvn)",
            Self::Make => "make and a C++ compiler",
        }
    }
}

/// Makes sure of all of `wanted`.
///
/// # Errors
/// One line that says what to install, where we cannot.
pub fn ensure(wanted: &[Requirement]) -> Result<(), String> {
    let missing: Vec<Requirement> = wanted.iter().copied().filter(|requirement| !requirement.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|requirement| requirement.name()).collect::<Vec<_>>().join(", ");
    if !(Uid::effective().is_root() && Path::new("/etc/debian_version").exists() && find_program("apt-get").is_some()) {
        return Err(format!("please install: {names}"));
    }
    eprintln!("installing with apt-get: {names}");
    let apt = |args: &[&str]| {
        Spec::new("apt-get", "apt-get", Path::new("/")).env("DEBIAN_FRONTEND", "noninteractive").args(args).run()
    };
    let packages = missing.iter().flat_map(|requirement| requirement.packages()).copied();
    let install: Vec<&str> =
        ["install", "--yes", "--no-install-recommends", "-qq"].into_iter().chain(packages).collect();
    apt(&["update", "-qq"])
        .and_then(|()| apt(&install))
        .map_err(|error| format!("please install: {names} (apt-get could not: {error:#})"))?;
    match missing.iter().find(|requirement| !requirement.is_there()) {
        None => Ok(()),
        Some(still) => Err(format!("please install: {}", still.name())),
    }
}
