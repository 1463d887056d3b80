//! A process from its start to its exit code.

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signalpost_config::Settings;
use signalpost_core::{Clock, Entropy};
use signalpost_runtime::{Shutdown, SystemClock, SystemEntropy, on_signals};
use signalpost_telemetry::{LogSettings, Metrics, logging};

use crate::{
    Failure,
    threads::{self, LAST_WORDS},
};

/// Milliseconds that are added to the clock of this process, for tests with machines whose clocks differ. Not a setting, as
/// nobody is served by a wrong clock; variables whose names begin so are left to tests.
const CLOCK_OFFSET: &str = "SIGNALPOST_TEST_CLOCK_OFFSET_MS";

/// Runs a command. The first SIGINT or SIGTERM drains it, the second ends it at once.
pub fn run<F>(main: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = Result<(), Failure>>,
{
    match run_to_end(main) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run_to_end<F>(main: impl FnOnce(Shutdown) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = threads::start("signalpost")?;
    let shutdown = Shutdown::new();
    let result = runtime.block_on(async {
        on_signals(&shutdown).context("cannot handle signals")?;
        let main = Box::pin(main(shutdown.clone()));
        tokio::select! {
            biased;
            () = shutdown.stopped() => Err(Failure::Told),
            result = main => result,
        }
    });
    // What is dropped with its tasks is closed properly: the database above all. Not after the second signal.
    runtime.shutdown_timeout(if matches!(result, Err(Failure::Told)) { Duration::ZERO } else { LAST_WORDS });
    result
}

/// What every service has: logs, metrics, clock, randomness.
pub struct Process {
    /// The recorder.
    pub metrics: Metrics,
    /// The system's clock.
    pub clock: Arc<dyn Clock>,
    /// The system's randomness.
    pub entropy: Arc<dyn Entropy>,
    _logs: logging::LogGuard,
}

impl Process {
    /// Sets up logging and metrics, and takes as many file descriptors as the system allows: each connection needs one.
    ///
    /// # Errors
    /// The log filter is wrong, or traces cannot be exported.
    pub fn start(settings: &Settings, service: &'static str) -> Result<Self, Failure> {
        let telemetry = &settings.telemetry;
        let logs = logging::init(&LogSettings {
            filter: telemetry.log.as_str().to_owned(),
            json: telemetry.log_format.json(),
            otlp_endpoint: telemetry.otlp_endpoint.as_ref().map(|url| url.as_str().to_owned()),
            sample_ratio: telemetry.trace_sample_ratio,
            service,
        })?;
        raise_file_limit();
        let metrics = Metrics::install()?;
        Ok(Self { metrics, clock: Arc::new(clock()?), entropy: Arc::new(SystemEntropy), _logs: logs })
    }
}

/// The system's clock, off by [`CLOCK_OFFSET`].
fn clock() -> Result<SystemClock, Failure> {
    let Ok(offset) = std::env::var(CLOCK_OFFSET) else { return Ok(SystemClock::new()) };
    let offset_ms = offset.parse().map_err(|_| Failure::setting(format!("{CLOCK_OFFSET}: {offset} is no number")))?;
    tracing::warn!(offset_ms, "this clock is off on purpose: {CLOCK_OFFSET} is for tests");
    Ok(SystemClock::new().off_by_ms(offset_ms))
}

/// The soft limit is often 1,024 for the sake of old programs; the hard one is what may be used.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of file descriptors stays as it is");
    }
}
