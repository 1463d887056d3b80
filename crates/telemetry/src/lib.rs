//! Logging, traces, metrics and health: what every service shows of itself.
//!
//! A binary calls [`logging::init`] and [`Metrics::install`] once, builds a [`Health`] from checks of what it depends
//! on, and serves [`health::router`]. Libraries use `tracing`, the `metrics` macros with the constants of [`names`], and
//! [`TraceContext`].

pub mod docs;
pub mod generated;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod names;
#[cfg(feature = "otlp")]
mod otlp;
pub mod trace;

pub use health::{Access, Health};
pub use logging::LogSettings;
pub use metrics::Metrics;
pub use trace::TraceContext;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one of `tracing`.
    #[error("the log filter `{filter}` is not valid")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging or the metrics recorder was set up before, by somebody else.
    #[error("{0} is set up already")]
    Twice(&'static str),
    /// An endpoint for traces is configured, and this binary cannot export.
    #[error(
        "traces cannot be exported (SIGNALPOST_OTLP_ENDPOINT): this binary is built without the feature `otlp`; \
         `cargo build --release -p signalpost --features otlp` makes one that can"
    )]
    NoOtlp,
    /// The exporter of traces refuses its settings.
    #[error("the exporter of traces cannot be built: {0}")]
    Otlp(String),
    /// The metrics recorder refuses its settings: a bug.
    #[error("the metrics recorder cannot be built: {0}")]
    Metrics(String),
}
