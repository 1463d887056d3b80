//! Spans reach a collector by OTLP/HTTP, below the trace that the producer began.
#![cfg(feature = "otlp")]

use std::time::Duration;

use axum::{Router, body::Bytes, routing::post};
use signalpost_telemetry::{LogSettings, TraceContext, logging, trace};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn a_span_reaches_the_collector_in_the_trace_of_its_producer() {
    let (seen, mut bodies) = mpsc::unbounded_channel::<Bytes>();
    let collector = Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| {
            let _gone = seen.send(body);
            std::future::ready("")
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, collector).await });

    let settings = LogSettings {
        otlp_endpoint: Some(endpoint),
        sample_ratio: 0.0,
        service: "signalpost-test",
        ..LogSettings::default()
    };
    let guard = logging::init(&settings).expect("the first in this process");
    let parent = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("the example");
    let span = tracing::info_span!("deliver");
    trace::link(&span, parent);
    let current = trace::current(&span).expect("spans are exported");
    assert_eq!(current.trace_id, parent.trace_id);
    assert_ne!(current.span_id, parent.span_id);
    assert!(current.sampled, "the producer's decision holds, whatever our own ratio is");
    drop(span);
    // The attempt of a delivery is exported although it is below `info`; other spans there are not.
    let attempt = tracing::debug_span!(trace::ATTEMPT, attempt = 3);
    trace::link(&attempt, parent);
    let sent = attempt.in_scope(|| trace::current(&tracing::Span::current())).expect("attempts are exported");
    assert_eq!(sent.trace_id, parent.trace_id);
    trace::status(&attempt, 503);
    trace::failed(&attempt, "it answered 503");
    drop(attempt);
    assert_eq!(trace::current(&tracing::debug_span!("detail")), None);
    // Exports what is left; blocks, so not on a worker of the runtime.
    tokio::task::spawn_blocking(move || drop(guard)).await.expect("the exporter ends");

    let body = tokio::time::timeout(Duration::from_secs(10), bodies.recv()).await.expect("in time").expect("a body");
    let has = |needle: &[u8]| body.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"deliver"), "the span's name");
    assert!(has(b"signalpost-test"), "the service's name");
    assert!(has(&parent.trace_id.to_be_bytes()), "the trace");
    assert!(has(b"attempt") && has(b"it answered 503"), "the attempt and why it failed");
    assert!(has(&sent.span_id.to_be_bytes()), "the span whose id is sent on");
    server.abort();
}
