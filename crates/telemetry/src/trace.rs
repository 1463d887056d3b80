//! W3C Trace Context: the header `traceparent`, version 00 (<https://www.w3.org/TR/trace-context/>).
//!
//! It travels from the producer's request in the event's metadata to every request that delivers it, with or without an
//! exporter. [`link`], [`status`], [`failed`] and [`current`] tie it to the spans that are exported; without the feature `otlp` they do nothing.

use std::fmt;

use signalpost_core::Entropy;
use tracing::Span;

/// The name of the span of one attempt of a delivery. It is exported, and stands in log lines only at `debug`: at `info` a
/// span for each would be made for the few lines that are written.
pub const ATTEMPT: &str = "attempt";

/// The identity of one span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Of the whole trace; never 0.
    pub trace_id: u128,
    /// Of this span; never 0.
    pub span_id: u64,
    /// Whether the caller may have recorded it.
    pub sampled: bool,
}

impl TraceContext {
    /// The start of a new trace.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        Self { trace_id: u128::from_be_bytes(bytes).max(1), span_id: span_id(entropy), sampled: false }
    }

    /// A span below this one: the same trace, an id of its own.
    #[must_use]
    pub fn child(self, entropy: &dyn Entropy) -> Self {
        Self { span_id: span_id(entropy), ..self }
    }

    /// Reads the value of a header. None where it is not valid; then a new trace is started, as the standard says.
    /// Fields that a later version appends are ignored.
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let well_formed = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
        if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }
}

fn span_id(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_be_bytes(bytes).max(1)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Makes an exported span a child of that context.
pub fn link(span: &Span, parent: TraceContext) {
    #[cfg(feature = "otlp")]
    {
        use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, id) = (TraceId::from(parent.trace_id), SpanId::from(parent.span_id));
        let remote = SpanContext::new(trace, id, flags, true, TraceState::default());
        let context = opentelemetry::Context::new().with_remote_span_context(remote);
        // It fails where nothing is exported or the span has begun to be: then the span stands alone.
        let _linked = span.set_parent(context);
    }
    #[cfg(not(feature = "otlp"))]
    let _unused = (span, parent);
}

/// Notes the status of a response in an exported span. Not in the span itself: the lines of a log would have to be made anew.
pub fn status(span: &Span, code: u16) {
    #[cfg(feature = "otlp")]
    {
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        span.set_attribute("http.response.status_code", i64::from(code));
    }
    #[cfg(not(feature = "otlp"))]
    let _unused = (span, code);
}

/// Marks an exported span as failed, with the reason.
pub fn failed(span: &Span, reason: &str) {
    #[cfg(feature = "otlp")]
    {
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        span.set_status(opentelemetry::trace::Status::error(reason.to_owned()));
    }
    #[cfg(not(feature = "otlp"))]
    let _unused = (span, reason);
}

/// The context of an exported span, to be sent on. None where spans are not exported.
pub fn current(span: &Span) -> Option<TraceContext> {
    #[cfg(feature = "otlp")]
    {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        let context = span.context();
        let span_context = context.span().span_context().clone();
        span_context.is_valid().then(|| TraceContext {
            trace_id: u128::from_be_bytes(span_context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(span_context.span_id().to_bytes()),
            sampled: span_context.is_sampled(),
        })
    }
    #[cfg(not(feature = "otlp"))]
    {
        let _unused = span;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, section 3.2.2.5.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[derive(Debug)]
    struct Constant(u8);
    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn the_example_is_read_and_written() {
        let context = TraceContext::parse(EXAMPLE).expect("the specification's example");
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert!(context.sampled);
        assert_eq!(context.to_string(), EXAMPLE);
    }

    #[test]
    fn a_child_stays_in_its_trace() {
        let parent = TraceContext::parse(EXAMPLE).expect("the specification's example");
        let child = parent.child(&Constant(7));
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0707070707070707-01");
    }

    #[test]
    fn ids_of_zero_are_never_made() {
        let context = TraceContext::new(&Constant(0));
        assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
    }

    #[test]
    fn what_is_not_valid_is_refused() {
        for header in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
        // A later version may append fields.
        assert!(TraceContext::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
    }
}
