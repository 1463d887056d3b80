//! Every setting.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use signalpost_core::Secret;

use crate::{
    ConfigError,
    defaults::DestinationDefaults,
    kafka::Properties,
    logs::{Format, LogFilter},
    setting::{
        Fallback::{ByKind, DevOr, Text, Unset},
        Kind, Setting, concern,
    },
    value::{Keys, Url},
};

const CLUSTER: &[Kind] = &[Kind::Api, Kind::Dispatcher, Kind::Retry];

concern! {
    /// Listening, and the operator.
    Service {
        /// The address and port on which the service listens.
        listen: SocketAddr = "LISTEN" {
            default: ByKind(&[
                (&[Kind::Dev, Kind::Standalone], "127.0.0.1:8080"),
                (&[Kind::Api, Kind::Tool], "0.0.0.0:8080"),
                (&[Kind::Dispatcher], "0.0.0.0:8081"),
                (&[Kind::Retry], "0.0.0.0:8082"),
            ]),
            example: "0.0.0.0:8080",
        }
        /// An address of their own for `/metrics` and the health routes, where they need no key: one that only
        /// your monitoring reaches.
        metrics_listen: Option<SocketAddr> = "METRICS_LISTEN" { example: "127.0.0.1:9090" }
        /// The operator's keys, comma-separated, newest first; each has 16 or more visible characters.
        /// `dev` and `standalone` make one on their first start and keep it in the data directory.
        admin_keys: Keys = "ADMIN_KEY" {
            example: "a-long-random-string", secret: true, needed_by: &[Kind::Api],
        }
        /// Proxies (CIDRs, comma-separated) whose `X-Forwarded-For` is believed: the client's address is the rightmost in it that is
        /// none of them. The audit log shows it, and registrations are limited by it.
        trusted_proxies: Vec<IpNet> = "TRUSTED_PROXIES" { default: Text(""), example: "10.0.0.0/8,fd00::/8" }
        /// How many connections the listener has at once; further ones are refused with 503. Never more than three quarters of the
        /// process's file descriptors, which are its hard limit of open files.
        max_connections: NonZeroUsize = "MAX_CONNECTIONS" {
            default: Text("20000"), unit: "connections", example: "50000", range: Some((16.0, 1_000_000.0)),
        }
        /// How many of them one address may have (IPv6: one /64), so that one client cannot take all. Connections of
        /// `TRUSTED_PROXIES` are not counted here: name your load balancers there.
        max_connections_per_address: NonZeroUsize = "MAX_CONNECTIONS_PER_ADDRESS" {
            default: Text("2000"), unit: "connections", example: "100", range: Some((1.0, 1_000_000.0)),
        }
        /// Whether everybody may create a tenant, without a key: `POST /v1/tenants`. Such a tenant has no quotas.
        open_registration: bool = "OPEN_REGISTRATION" { default: Text("false"), example: "true" }
        /// How many tenants may be created so from one address (IPv6: from one /64), at each api process.
        open_registrations_per_hour: NonZeroU32 = "OPEN_REGISTRATIONS_PER_HOUR" {
            default: Text("10"), unit: "tenants per hour", example: "3", range: Some((1.0, 100_000.0)),
        }
        /// How long a service that is asked to stop finishes what it began, before it stops at once. Keep it below
        /// the grace period of what runs it (Kubernetes: 30 s).
        drain: Duration = "DRAIN_SECONDS" {
            default: Text("25"), unit: "seconds", example: "50", range: Some((0.0, 3600.0)),
        }
    }
}

concern! {
    /// Where things are kept.
    Storage {
        /// The keys that signing secrets, credentials and values of headers are encrypted with at rest: `id:` and the
        /// base64 of 32 random bytes, comma-separated, newest first (`echo "k1:$(openssl rand -base64 32)"`). The newest encrypts,
        /// all decrypt; `signalpost rotate-keys` encrypts everything with the newest. `dev` and `standalone` make one on their first start.
        /// Whoever loses them loses the secrets: keep them apart from the backups of the database.
        encryption_keys: Option<Secret> = "ENCRYPTION_KEYS" {
            example: "\"k1:$(openssl rand -base64 32)\"", secret: true,
            needed_by: &[Kind::Api, Kind::Dispatcher],
        }
        /// `dev` and `standalone`: the directory of the database and of what they make on their first start.
        data_dir: PathBuf = "DATA_DIR" { default: Text("./signalpost-data"), example: "/var/lib/signalpost" }
        /// Cluster: the PostgreSQL database, with `sslmode` where it is not local.
        database_url: Option<Secret> = "DATABASE_URL" {
            example: "postgres://signalpost:secret@db.internal/signalpost?sslmode=verify-full", secret: true,
            needed_by: CLUSTER,
        }
        /// Cluster: the most connections that one process opens. All processes together stay below the database's
        /// `max_connections`.
        database_max_connections: NonZeroU32 = "DATABASE_MAX_CONNECTIONS" {
            default: Text("16"), unit: "connections", example: "32", range: Some((2.0, 1000.0)),
        }
        /// Cluster: Redis, for rate limits and claims shared by the dispatchers; `rediss:` for TLS. Deliveries go on
        /// without it, under local shares.
        redis_url: Option<Secret> = "REDIS_URL" {
            example: "redis://redis.internal:6379", secret: true, needed_by: &[Kind::Api, Kind::Dispatcher],
        }
    }
}

concern! {
    /// Kafka (cluster). Any other `SIGNALPOST_KAFKA_<PROPERTY>` goes to librdkafka, in lower case and with dots
    /// for underscores: `SIGNALPOST_KAFKA_SECURITY_PROTOCOL=SASL_SSL` sets `security.protocol`.
    Kafka {
        /// Its brokers, comma-separated.
        brokers: Option<String> = "KAFKA_BROKERS" {
            example: "kafka-1.internal:9092,kafka-2.internal:9092", needed_by: CLUSTER,
        }
        /// What the names of our topics begin with. Two installations on one Kafka need different ones.
        topic_prefix: String = "KAFKA_TOPIC_PREFIX" { default: Text("signalpost"), example: "staging-signalpost" }
        /// The consumer group of the dispatchers.
        consumer_group: String = "KAFKA_CONSUMER_GROUP" {
            alias: Some("CONSUMER_GROUP"),
            default: Text("signalpost-dispatchers"), example: "staging-dispatchers",
        }
        /// Partitions of the topic of deliveries, made by `migrate`: at least as many as dispatchers will ever run.
        partitions: NonZeroU32 = "KAFKA_PARTITIONS" {
            alias: Some("PARTITIONS"),
            default: Text("12"), unit: "partitions", example: "64", range: Some((1.0, 10_000.0)),
        }
        /// Copies of each partition, made by `migrate`; not set: as many as the brokers make by default. Losing a
        /// partition loses no delivery, but brings them late.
        replication: Option<NonZeroU32> = "KAFKA_REPLICATION" {
            alias: Some("REPLICATION"),
            unit: "copies", example: "3", range: Some((1.0, 100.0)),
        }
    }
}

concern! {
    /// Accepting events.
    Ingest {
        /// The largest event, in bytes as posted: all of it, not only its `data`.
        max_event_bytes: NonZeroUsize = "MAX_EVENT_BYTES" {
            default: Text("1048576"), unit: "bytes", example: "262144", range: Some((1024.0, 16_777_216.0)),
        }
        /// How long an idempotency key or a `uid` is remembered. Longer than your producers keep trying.
        idempotency: Duration = "IDEMPOTENCY_HOURS" {
            default: Text("24"), unit: "hours", example: "72", range: Some((1.0, 720.0)),
        }
    }
}

/// Ports of other protocols. The same list is `DEFAULT_DENY_PORTS` of the sender; a test of the wiring holds them together.
const DENY_PORTS: &str = "0,1,7,9,11,13,15,17,19,20,21,22,23,25,37,42,43,53,69,77,79,87,95,101,102,103,104,109,110,\
    111,113,115,117,119,123,135,137,139,143,161,179,389,427,445,465,512,513,514,515,526,530,\
    531,532,540,548,554,556,563,587,601,636,989,990,993,995,1433,1521,1719,1720,1723,2049,\
    2375,2379,2380,3306,3389,3659,4045,4190,5060,5061,5432,5672,6000,6379,6566,6665,6666,6667,\
    6668,6669,6679,6697,9042,9092,10080,10250,11211,27017";

concern! {
    /// Sending.
    Delivery {
        /// CIDRs that deliveries may reach besides the public internet, comma-separated; replaces the default.
        egress_allow: Vec<IpNet> = "EGRESS_ALLOW" {
            default: DevOr("127.0.0.0/8,::1/128", ""), example: "10.20.0.0/16",
        }
        /// Whether `http:` is refused for all that `EGRESS_ALLOW` does not name.
        require_https: bool = "REQUIRE_HTTPS" { default: DevOr("false", "true"), example: "false" }
        /// Ports that nothing is sent to, comma-separated; replaces the default: ports of mail, shells, data stores and what else
        /// does not speak HTTP. It holds for what `EGRESS_ALLOW` names, too.
        egress_deny_ports: Vec<u16> = "EGRESS_DENY_PORTS" { default: Text(DENY_PORTS), example: "22,25,3306,5432,6379,9092" }
        /// An HTTP proxy (`CONNECT`) through which all is sent but to what `EGRESS_ALLOW` names. Names are still resolved here, and
        /// the proxy is asked for addresses. `HTTP_PROXY` and the like are never looked at.
        egress_proxy: Option<Secret> = "EGRESS_PROXY" {
            example: "http://user:password@proxy.internal:3128", secret: true,
        }
        /// A PEM file with certificates that are trusted for destinations besides the roots of the web.
        egress_ca_file: Option<PathBuf> = "EGRESS_CA_FILE" { example: "/etc/signalpost/company-ca.pem" }
        /// Requests that one dispatcher process has out at once, over all destinations. Bounds its memory and sockets.
        max_in_flight: NonZeroUsize = "MAX_IN_FLIGHT" {
            default: Text("2048"), unit: "requests", example: "8192", range: Some((1.0, 100_000.0)),
        }
        /// Memory for payloads of more than 64 KiB that one dispatcher process is sending at once, each counted twice: as it is and as it
        /// is sent. What finds no room within a second goes back to the store for a second. Smaller ones are bounded by their number.
        max_large_payload_bytes: NonZeroUsize = "MAX_LARGE_PAYLOAD_BYTES" {
            default: Text("268435456"), unit: "bytes", example: "1073741824", range: Some((1_048_576.0, 1_099_511_627_776.0)),
        }
        /// A delivery older than this is not tried again, whatever its retry policy says: it is dead (`expired`).
        max_age: Duration = "MAX_AGE_DAYS" {
            default: Text("14"), unit: "days", example: "7", range: Some((0.01, 365.0)),
        }
    }
}

concern! {
    /// Keeping.
    Retention {
        /// How long events, deliveries and attempts are kept. What has not ended is kept beyond it.
        events: Duration = "RETENTION_DAYS" {
            default: Text("30"), unit: "days", example: "90", range: Some((1.0, 3650.0)),
        }
        /// How long dead letters are kept, each with its own copy of the event.
        dead_letters: Duration = "DEAD_LETTER_RETENTION_DAYS" {
            default: Text("30"), unit: "days", example: "365", range: Some((1.0, 3650.0)),
        }
        /// How long entries of the audit log are kept. Those of a tenant that is deleted go with it.
        audit: Duration = "AUDIT_RETENTION_DAYS" {
            default: Text("365"), unit: "days", example: "730", range: Some((1.0, 3650.0)),
        }
    }
}

concern! {
    /// Logs and traces.
    Telemetry {
        /// What is logged: a filter of `tracing`.
        log: LogFilter = "LOG" { default: Text("info"), example: "info,signalpost_dispatcher=debug" }
        /// `json`, `text`, or `auto`: text where standard error is a terminal.
        log_format: Format = "LOG_FORMAT" { default: Text("auto"), example: "json" }
        /// An OpenTelemetry collector to which traces are exported by OTLP/HTTP.
        otlp_endpoint: Option<Url> = "OTLP_ENDPOINT" { default: Unset, example: "http://collector.internal:4318" }
        /// The share of traces that is exported where the producer's `traceparent` does not decide it.
        trace_sample_ratio: f64 = "TRACE_SAMPLE_RATIO" { default: Text("0.1"), example: "1", range: Some((0.0, 1.0)) }
    }
}

/// Everything that is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// For what.
    pub kind: Kind,
    /// Listening, and the operator.
    pub service: Service,
    /// Where things are kept.
    pub storage: Storage,
    /// Kafka.
    pub kafka: Kafka,
    /// What goes to librdkafka as it is.
    pub kafka_properties: Properties,
    /// Accepting events.
    pub ingest: Ingest,
    /// Sending.
    pub delivery: Delivery,
    /// Keeping.
    pub retention: Retention,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// What a new destination has where its owner says nothing.
    pub destination_defaults: DestinationDefaults,
}

/// All concerns, in the order of the documentation.
pub const CONCERNS: &[(&str, &[Setting])] = &[
    (Service::ABOUT, Service::SETTINGS),
    (Storage::ABOUT, Storage::SETTINGS),
    (Kafka::ABOUT, Kafka::SETTINGS),
    (Ingest::ABOUT, Ingest::SETTINGS),
    (Delivery::ABOUT, Delivery::SETTINGS),
    (Retention::ABOUT, Retention::SETTINGS),
    (Telemetry::ABOUT, Telemetry::SETTINGS),
];

/// All settings, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    CONCERNS.iter().flat_map(|(_, settings)| settings.iter())
}

impl Settings {
    /// The database of the cluster.
    ///
    /// # Errors
    /// It is not set.
    pub fn database_url(&self) -> Result<&str, ConfigError> {
        self.storage.database_url.as_ref().map(Secret::reveal).ok_or_else(|| self.missing("DATABASE_URL"))
    }

    /// Redis of the cluster.
    ///
    /// # Errors
    /// It is not set.
    pub fn redis_url(&self) -> Result<&str, ConfigError> {
        self.storage.redis_url.as_ref().map(Secret::reveal).ok_or_else(|| self.missing("REDIS_URL"))
    }

    /// Kafka of the cluster.
    ///
    /// # Errors
    /// It is not set.
    pub fn kafka_brokers(&self) -> Result<&str, ConfigError> {
        self.kafka.brokers.as_deref().ok_or_else(|| self.missing("KAFKA_BROKERS"))
    }

    fn missing(&self, name: &'static str) -> ConfigError {
        let example = all().find(|setting| setting.name == name).map_or("", |setting| setting.example);
        ConfigError::Missing { name, kind: self.kind, example }
    }
}
