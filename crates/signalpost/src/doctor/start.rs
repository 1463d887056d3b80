//! What a start makes of the settings before it listens: done here in the same way, so that what would stop it is told.

use signalpost_config::{LogFilter, Settings};
use signalpost_core::Secret;
use signalpost_runtime::SystemEntropy;
use signalpost_vault::KeyRing;
use signalpost_wiring::{Failure, Finding, Process, settings as to};

const WHAT: &str = "settings";
const REMEDY: &str = "correct the setting; nothing starts with it as it is";

/// Logs, defaults of destinations, and the client that sends to them. Keys are looked at elsewhere.
pub fn settings(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut stops = |failure: Failure| findings.push(Finding::bad(WHAT, failure.to_string(), REMEDY));
    if let Err(failure) = to::destination_defaults(settings) {
        stops(failure);
    }
    let process = Process::start(settings, "doctor").or_else(|failure| {
        stops(failure);
        // What is said of the log does not hide the rest.
        let mut plain = settings.clone();
        plain.telemetry.log = LogFilter::warn();
        plain.telemetry.otlp_endpoint = None;
        Process::start(&plain, "doctor")
    });
    if let Err(failure) = process.and_then(|process| sender(settings, &process)) {
        stops(failure);
    }
    if findings.is_empty() {
        findings.push(Finding::good(WHAT, "what is sent and how it is logged is made from them as at a start"));
    }
    findings
}

/// With a key of its own, as it sends nothing.
fn sender(settings: &Settings, process: &Process) -> Result<(), Failure> {
    let mut settings = settings.clone();
    let key = KeyRing::generate("k1", &SystemEntropy);
    settings.storage.encryption_keys = Some(Secret::new(key.reveal()));
    to::sender(&settings, process, to::vault(&settings)?)?;
    Ok(())
}
