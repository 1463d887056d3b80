//! Logs: for a person on a terminal, JSON lines for a machine. To standard error; standard output belongs to
//! what a command answers.

mod fields;

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, registry::LookupSpan, util::SubscriberInitExt as _,
};

use crate::TelemetryError;

/// What is logged, and where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// A filter of `tracing`, e.g. `info` or `signalpost_dispatcher=debug,warn`.
    pub filter: String,
    /// JSON or for people; None: by whether standard error is a terminal.
    pub json: Option<bool>,
    /// Traces are exported there by OTLP/HTTP (`http://collector:4318`); None: nowhere. Needs the feature `otlp`.
    pub otlp_endpoint: Option<String>,
    /// The share of traces exported, 0 to 1, where the producer's `traceparent` does not decide it.
    pub sample_ratio: f64,
    /// The name of the service in traces.
    pub service: &'static str,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: None, otlp_endpoint: None, sample_ratio: 0.1, service: "signalpost" }
    }
}

/// Keeps the exporter of traces; when it is dropped, what is left is exported (bounded).
#[must_use = "dropping it ends the export of traces"]
#[derive(Debug, Default)]
pub struct LogGuard {
    #[cfg(feature = "otlp")]
    _exporter: Option<crate::otlp::Exporter>,
}

/// Sets up logging for the process.
///
/// # Errors
/// The filter cannot be parsed, traces cannot be exported, or logging is set up already.
pub fn init(settings: &LogSettings) -> Result<LogGuard, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&settings.filter)
        .map_err(|source| TelemetryError::Filter { filter: settings.filter.clone(), source })?;
    let json = settings.json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    let (guard, traces) = traces(settings)?;
    let registry = tracing_subscriber::registry();
    let is_set = match (traces, json) {
        // One filter before everything, and no boxes: every request has a span, and each layer is asked several times about it.
        (None, true) => registry.with(filter).with(json_lines()).try_init(),
        (None, false) => registry.with(filter).with(text_lines()).try_init(),
        (Some(traces), json) => {
            let lines = if json { json_lines().boxed() } else { text_lines().boxed() };
            registry.with(vec![lines.with_filter(filter).boxed(), traces]).try_init()
        }
    };
    is_set.map_err(|_| TelemetryError::Twice("logging"))?;
    Ok(guard)
}

fn json_lines<S: Subscriber + for<'s> LookupSpan<'s>>() -> impl Layer<S> + Send + Sync {
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
    layer.fmt_fields(fields::SpanFields).with_ansi(false).with_writer(std::io::stderr)
}

fn text_lines<S: Subscriber + for<'s> LookupSpan<'s>>() -> impl Layer<S> + Send + Sync {
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).compact()
}

type TraceLayer = Option<Box<dyn Layer<Registry> + Send + Sync>>;

#[cfg(feature = "otlp")]
fn traces(settings: &LogSettings) -> Result<(LogGuard, TraceLayer), TelemetryError> {
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok((LogGuard::default(), None));
    };
    let (exporter, layer) = crate::otlp::start(endpoint, settings.service, settings.sample_ratio)?;
    Ok((LogGuard { _exporter: Some(exporter) }, Some(layer)))
}

#[cfg(not(feature = "otlp"))]
fn traces(settings: &LogSettings) -> Result<(LogGuard, TraceLayer), TelemetryError> {
    if settings.otlp_endpoint.is_some() { Err(TelemetryError::NoOtlp) } else { Ok((LogGuard::default(), None)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_by_its_name() {
        let settings = LogSettings { filter: "info,signalpost=loud".to_owned(), ..LogSettings::default() };
        let error = init(&settings).expect_err("a level `loud`");
        assert!(error.to_string().contains("signalpost=loud"), "{error}");
    }

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn an_endpoint_without_the_feature_is_refused() {
        let settings =
            LogSettings { otlp_endpoint: Some("http://127.0.0.1:4318".to_owned()), ..LogSettings::default() };
        assert!(matches!(init(&settings), Err(TelemetryError::NoOtlp)));
    }
}
