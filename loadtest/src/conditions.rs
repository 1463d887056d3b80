//! Under what conditions a result was made: two results can be compared where these are alike.

use std::{fmt, process::Command};

use serde::Serialize;
use signalpost_core::Timestamp;

use crate::{address::Address, target};

/// All that is known of them. It is shown around, so it holds no keys, no values of settings and no paths.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Conditions {
    /// When the scenario began.
    pub date: Timestamp,
    /// The version of this program.
    pub loadtest: &'static str,
    /// What the program that was started says that it is.
    pub program: Option<String>,
    /// The name of the folder that it lies in.
    pub binaries: Option<String>,
    /// Where what ran already was reached.
    pub url: Vec<String>,
    /// Whether PostgreSQL was started without fsync.
    pub no_fsync: bool,
    /// Names of the settings that what was started got besides.
    pub env: Vec<String>,
    /// The model of the processor.
    pub cpu: Option<String>,
    /// How many threads of it there are for us.
    pub cores: usize,
}

impl Conditions {
    /// Of a scenario that began then; `started`: whether a Signalpost was started for it.
    pub fn of(target: &target::Options, started: bool, date: Timestamp) -> Self {
        let binaries =
            if started { target.binaries().and_then(|folder| Ok(folder.canonicalize()?)).ok() } else { None };
        let name = |setting: &String| setting.split_once('=').map_or(setting.as_str(), |(name, _)| name).to_owned();
        Self {
            date,
            loadtest: env!("CARGO_PKG_VERSION"),
            program: binaries.as_ref().and_then(|folder| {
                let said = Command::new(folder.join("signalpost")).arg("--version").output().ok()?.stdout;
                Some(String::from_utf8_lossy(&said).trim().to_owned())
            }),
            binaries: binaries.and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned())),
            url: target.url.iter().map(Address::origin).collect(),
            no_fsync: target.no_fsync,
            env: target.env.iter().map(name).collect(),
            cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model(&text)),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
        }
    }
}

/// The model that `/proc/cpuinfo` names first.
fn model(text: &str) -> Option<String> {
    let named = text.lines().filter_map(|line| line.split_once(':'));
    named.into_iter().find(|(name, _)| name.trim() == "model name").map(|(_, model)| model.trim().to_owned())
}

/// As one line.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, loadtest {}", self.date, self.loadtest)?;
        if let Some(program) = &self.program {
            write!(f, ", {program}")?;
        }
        if let Some(binaries) = &self.binaries {
            write!(f, " of {binaries}")?;
        }
        for url in &self.url {
            write!(f, ", {url}")?;
        }
        if self.no_fsync {
            f.write_str(", without fsync")?;
        }
        for name in &self.env {
            write!(f, ", {name} set")?;
        }
        write!(f, ", {}, {} cores", self.cpu.as_deref().unwrap_or("processor not known"), self.cores)
    }
}

#[cfg(test)]
mod tests {
    use super::{Conditions, model};

    #[test]
    fn a_line_tells_them() {
        let conditions = Conditions {
            loadtest: "0.1.0",
            program: Some("signalpost 0.1.0".to_owned()),
            binaries: Some("dist".to_owned()),
            no_fsync: true,
            env: vec!["SIGNALPOST_LOG".to_owned()],
            cpu: model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: another\n"),
            cores: 2,
            ..Conditions::default()
        };
        assert_eq!(
            conditions.to_string(),
            "1970-01-01T00:00:00Z, loadtest 0.1.0, signalpost 0.1.0 of dist, without fsync, SIGNALPOST_LOG set, \
             Some CPU @ 2 GHz, 2 cores"
        );
    }
}
