//! Every metric, with its type, unit and help. `docs/metrics.md` is generated from this table.

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// What it measures.
    pub kind: MetricKind,
    /// The unit of its value; empty where it is a count of things.
    pub unit: &'static str,
    /// What it tells, for an operator.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($konst:ident $kind:ident $unit:literal $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $konst: &str = $name;)*

        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: MetricKind::$kind, unit: $unit, help: $help, labels: &[$($label),*] },)*];
    };
}

metrics! {
    EVENTS_RECEIVED Counter "" "signalpost_events_received_total" [] "Events accepted (202), duplicates not counted.";
    EVENTS_DUPLICATE Counter "" "signalpost_events_duplicate_total" [] "Events answered from an earlier acceptance (idempotency key or uid).";
    EVENTS_REJECTED Counter "" "signalpost_events_rejected_total" ["code"] "Events refused, by problem code.";
    EVENTS_UNROUTED Counter "" "signalpost_events_unrouted_total" [] "Events that no destination wanted.";
    DELIVERIES_ROUTED Counter "" "signalpost_deliveries_routed_total" [] "Deliveries created at acceptance.";
    INGEST_GROUP_SIZE Histogram "" "signalpost_ingest_group_size" [] "Events committed in one transaction.";
    INGEST_COMMIT_SECONDS Histogram "seconds" "signalpost_ingest_commit_seconds" [] "Time of one group's transaction.";
    INGEST_QUEUE Gauge "" "signalpost_ingest_queue" [] "Requests waiting for their group.";
    PUBLISH_FAILURES Counter "" "signalpost_publish_failures_total" [] "Batches that the bus did not acknowledge; the relay takes over.";
    HTTP_REQUESTS Counter "" "signalpost_http_requests_total" ["route", "status"] "Requests to our HTTP API.";
    HTTP_REQUEST_SECONDS Histogram "seconds" "signalpost_http_request_seconds" ["route"] "Time to answer a request to our HTTP API.";
    HTTP_CONNECTIONS Gauge "" "signalpost_http_connections" [] "Connections to our listeners that are open.";
    HTTP_CONNECTIONS_REFUSED Counter "" "signalpost_http_connections_refused_total" ["reason"] "Connections that were refused: `all` places are taken, or those of one `address`.";
    HTTP_CONNECTIONS_CUT Counter "" "signalpost_http_connections_cut_total" ["reason"] "Connections that were cut: the `head` of the first request did not come, or the `answer` was not read.";

    ATTEMPTS Counter "" "signalpost_attempts_total" ["outcome"] "Requests made to destinations, by outcome.";
    ATTEMPT_SECONDS Histogram "seconds" "signalpost_attempt_seconds" [] "Time of one request to a destination, body included.";
    DELIVERY_SECONDS Histogram "seconds" "signalpost_delivery_seconds" [] "From acceptance to the 2xx.";
    DELIVERED Counter "" "signalpost_deliveries_delivered_total" [] "Deliveries that arrived.";
    RETRIED Counter "" "signalpost_deliveries_retried_total" [] "Failed attempts that another one follows.";
    DEAD Counter "" "signalpost_deliveries_dead_total" ["reason"] "Deliveries that failed for good.";
    THROTTLED Counter "" "signalpost_deliveries_throttled_total" ["reason"] "Deliveries parked because their destination could not take them now, or there was no memory for their payload (`memory`).";
    SUSPECTS_DROPPED Counter "" "signalpost_suspects_dropped_total" ["reason"] "Messages not sent because the store or a claim said that they are duplicates.";
    DETACHED Counter "" "signalpost_requests_detached_total" [] "Requests that were out for so long that their offset was released.";
    IN_FLIGHT Gauge "" "signalpost_requests_in_flight" [] "Requests to destinations that are out now.";
    OUTCOME_BATCH_SIZE Histogram "" "signalpost_outcome_batch_size" [] "Outcomes written in one transaction.";
    OUTCOMES_UNWRITTEN Gauge "" "signalpost_outcomes_unwritten" [] "Outcomes waiting to be written.";
    UNREADABLE Counter "" "signalpost_messages_unreadable_total" [] "Bus messages that could not be decoded.";
    CIRCUIT_TRANSITIONS Counter "" "signalpost_circuit_transitions_total" ["to"] "Circuits of destinations that this dispatcher saw change.";
    CIRCUITS_OPEN Gauge "" "signalpost_circuits_open" [] "Circuits that this dispatcher knows not to be closed.";
    LIMITS_UNAVAILABLE Counter "" "signalpost_limits_unavailable_total" [] "Calls to the shared limits that failed; deliveries went on without.";

    RELAYED Counter "" "signalpost_outbox_relayed_total" [] "Outbox records taken over by the relay.";
    FED Counter "" "signalpost_deliveries_fed_total" [] "Waiting deliveries handed to the bus.";
    REQUEUED Counter "" "signalpost_deliveries_requeued_total" [] "Deliveries that the reconciler found lost by the bus and anchored again.";
    INTERRUPTED Counter "" "signalpost_attempts_interrupted_total" [] "Attempts whose process died before it wrote their outcome.";
    REPLAYED Counter "" "signalpost_deliveries_replayed_total" [] "Deliveries created by replay jobs.";
    PENDING Gauge "" "signalpost_deliveries_pending" [] "Deliveries waiting in the store.";
    DEAD_LETTERS Gauge "" "signalpost_dead_letters" [] "Dead letters neither replayed nor discarded.";
    OLDEST_DUE_SECONDS Gauge "seconds" "signalpost_oldest_due_seconds" [] "How long the oldest due queue has been due.";
    OUTBOX_AGE_SECONDS Gauge "seconds" "signalpost_outbox_age_seconds" [] "Age of the oldest outbox record.";
    QUEUES Gauge "" "signalpost_queues" [] "Destinations with waiting deliveries.";
    QUEUES_SPILLED Gauge "" "signalpost_queues_spilled" [] "Destinations whose new deliveries go straight to the store.";
    CONSUMER_LAG Gauge "" "signalpost_consumer_lag" [] "Messages published to the bus and not yet committed.";
    JOB_FAILURES Counter "" "signalpost_job_failures_total" ["task"] "Runs of a background job that failed; it runs again.";
}
