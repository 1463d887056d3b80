//! Export of spans by OTLP/HTTP (protobuf), from a thread of its own. A collector that is away costs spans,
//! never a delivery.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Level, Metadata};
use tracing_subscriber::{Layer, Registry, filter::filter_fn};

use crate::{TelemetryError, trace::ATTEMPT};

/// Where the specification puts traces below a collector's address (OTLP 1.x, "OTLP/HTTP Request").
const TRACES_PATH: &str = "/v1/traces";

const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Exports until it is dropped, and then what is left.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

pub(crate) fn start(
    endpoint: &str,
    service: &'static str,
    sample_ratio: f64,
) -> Result<(Exporter, Box<dyn Layer<Registry> + Send + Sync>), TelemetryError> {
    // The exporter's HTTP client takes the process's TLS provider. Whoever installed one first has won.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| TelemetryError::Otlp(error.to_string()))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio))))
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let tracer = provider.tracer("signalpost");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(is_exported)).boxed();
    Ok((Exporter(provider), layer))
}

/// Those at `info`, and attempts of deliveries.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || (metadata.is_span() && metadata.name() == ATTEMPT)
}

fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(TRACES_PATH) { base.to_owned() } else { format!("{base}{TRACES_PATH}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_once() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint), "http://c:4318/v1/traces");
        }
    }
}
