//! What `signalpost doctor` looks at in a cluster.

use std::{sync::Arc, time::Duration};

use signalpost_config::Settings;
use signalpost_core::{Clock as _, Timestamp};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{Health as _, StoreError};
use signalpost_store_postgres::{PostgresStore, Secrets};
use signalpost_wiring::{
    Finding,
    keys::{self, Kept},
    settings as to,
};
use tokio::time::timeout;

use crate::connect;

/// How long a dependency may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The API refuses to be ready beyond this.
const MAX_SKEW: Duration = Duration::from_secs(2);

/// The oldest PostgreSQL that the schema works on.
const OLDEST_POSTGRES: u32 = 15;

/// Everything.
pub async fn all(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![admin_key(settings)];
    findings.extend(postgres(settings).await);
    findings.extend(secrets(settings).await);
    findings.extend(kafka(settings).await);
    findings.push(redis(settings).await);
    findings
}

fn admin_key(settings: &Settings) -> Finding {
    const WHAT: &str = "operator's key";
    match settings.service.admin_keys.reveal().len() {
        0 => Finding::bad(
            WHAT,
            "none is set, so nobody can use the API",
            "set SIGNALPOST_ADMIN_KEY to 16 or more random characters (openssl rand -hex 24)",
        ),
        count => Finding::good(WHAT, format!("{count} set")),
    }
}

async fn postgres(settings: &Settings) -> Vec<Finding> {
    const WHAT: &str = "PostgreSQL";
    let Ok(url) = settings.database_url() else {
        return vec![Finding::bad(WHAT, "not set", "set SIGNALPOST_DATABASE_URL=postgres://user:password@host/name")];
    };
    let inspected = match timeout(PATIENCE, signalpost_store_postgres::inspect(url)).await {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(error)) => return vec![unreachable_database(&error.to_string())],
        Err(_) => return vec![unreachable_database("no answer within 5 s")],
    };
    let mut findings = vec![if inspected.major_version < OLDEST_POSTGRES {
        let problem = format!("version {} is too old", inspected.version);
        Finding::bad(WHAT, problem, format!("use PostgreSQL {OLDEST_POSTGRES} or later"))
    } else {
        Finding::good(WHAT, format!("version {}", inspected.version))
    }];
    findings.push(schema(url, settings).await);
    findings.push(connections(settings, inspected.max_connections));
    findings.push(skew(inspected.now));
    findings
}

/// Keys, and what is encrypted with them. What PostgreSQL does not answer is told above.
async fn secrets(settings: &Settings) -> Vec<Finding> {
    const WHAT: &str = "encryption keys";
    const ROTATE: &str = "when no service of a version before encryption is left, run `signalpost rotate-keys`";
    if settings.storage.encryption_keys.is_none() {
        let remedy =
            "set SIGNALPOST_ENCRYPTION_KEYS (`echo \"k1:$(openssl rand -base64 32)\"` makes one), the same for all";
        return vec![Finding::bad(WHAT, "none is set; api and dispatcher do not start without", remedy)];
    }
    let vault = match to::vault(settings) {
        Ok(vault) => vault,
        Err(failure) => return vec![Finding::bad(WHAT, failure.to_string(), "correct the setting")],
    };
    let Ok(url) = settings.database_url() else { return Vec::new() };
    match timeout(PATIENCE, signalpost_store_postgres::inspect_secrets(url)).await {
        Ok(Ok(Secrets { plain, sealed })) => keys::findings(&vault, &Kept { plain, sealed }, ROTATE),
        _ => vec![Finding::good(WHAT, format!("{}; what is encrypted with them is not known", vault.newest()))],
    }
}

fn unreachable_database(why: &str) -> Finding {
    let remedy = "check SIGNALPOST_DATABASE_URL, that the server runs, and that it lets this user in (pg_hba.conf)";
    Finding::bad("PostgreSQL", why, remedy)
}

async fn schema(url: &str, settings: &Settings) -> Finding {
    const WHAT: &str = "schema";
    let store = PostgresStore::connect(url, connect::postgres_settings(settings), Arc::new(SystemEntropy)).await;
    let checked = match store {
        Ok(store) => store.check().await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(_) => Finding::good(WHAT, "this version works on it"),
        Err(StoreError::Unavailable(why)) => unreachable_database(&why),
        Err(error) => {
            let why = error.to_string();
            Finding::bad(WHAT, why.trim_end_matches(": run `signalpost migrate`"), "run `signalpost migrate`")
        }
    }
}

fn connections(settings: &Settings, most: u32) -> Finding {
    const WHAT: &str = "max_connections";
    // Two more listen and look for changes.
    let each = settings.storage.database_max_connections.get() + 2;
    let processes = most.saturating_sub(5) / each;
    if processes < 3 {
        let remedy = "raise max_connections in PostgreSQL, or lower SIGNALPOST_DATABASE_MAX_CONNECTIONS";
        return Finding::bad(
            WHAT,
            format!("{most}: not enough for an api, a dispatcher and a retry of {each} each"),
            remedy,
        );
    }
    Finding::good(WHAT, format!("{most}: room for {processes} of our processes with {each} each"))
}

fn skew(theirs: Timestamp) -> Finding {
    const WHAT: &str = "clocks";
    let ours = SystemClock::new().now();
    let skew = ours.since(theirs).max(theirs.since(ours));
    if skew > MAX_SKEW {
        let problem = format!("{:.1} s apart from PostgreSQL's; an API is not ready beyond 2 s", skew.as_secs_f64());
        return Finding::bad(WHAT, problem, "run NTP on both machines");
    }
    Finding::good(WHAT, format!("{:.1} s apart from PostgreSQL's", skew.as_secs_f64()))
}

async fn kafka(settings: &Settings) -> Vec<Finding> {
    const WHAT: &str = "Kafka";
    if settings.kafka.brokers.is_none() {
        return vec![Finding::bad(WHAT, "not set", "set SIGNALPOST_KAFKA_BROKERS=host:9092")];
    }
    let kafka = match connect::kafka_settings(settings) {
        Ok(kafka) => kafka,
        Err(failure) => return vec![Finding::bad(WHAT, failure.to_string(), "correct the setting")],
    };
    let inspected = match signalpost_bus_kafka::inspect(&kafka).await {
        Ok(inspected) => inspected,
        Err(error) => {
            let remedy = "check SIGNALPOST_KAFKA_BROKERS, the brokers' advertised listeners, and SIGNALPOST_KAFKA_SECURITY_PROTOCOL";
            return vec![Finding::bad(WHAT, error.to_string(), remedy)];
        }
    };
    let mut findings = vec![Finding::good(WHAT, format!("brokers: {}", inspected.brokers))];
    for (topic, there) in inspected.topics {
        const WHAT: &str = "topic";
        let wanted = if topic == kafka.deliveries_topic() { usize::from(kafka.partitions) } else { 1 };
        findings.push(match there {
            None => Finding::bad(WHAT, format!("{topic} is missing"), "run `signalpost migrate`"),
            Some(there) if there.partitions < wanted => {
                let problem = format!("{topic} has {} partitions, {wanted} are set", there.partitions);
                Finding::bad(WHAT, problem, "run `signalpost migrate`")
            }
            Some(there) if there.least_copies < 2 && inspected.brokers > 1 => Finding::note(
                WHAT,
                format!("{topic} has one copy; losing its broker brings deliveries late (kafka-reassign-partitions adds copies)"),
            ),
            Some(there) => {
                Finding::good(WHAT, format!("{topic}, partitions: {}, copies: {}", there.partitions, there.least_copies))
            }
        });
    }
    findings
}

async fn redis(settings: &Settings) -> Finding {
    const WHAT: &str = "Redis";
    let Ok(url) = settings.redis_url() else {
        return Finding::bad(WHAT, "not set", "set SIGNALPOST_REDIS_URL=redis://host:6379");
    };
    let inspected = match timeout(PATIENCE, signalpost_limits_redis::inspect(url)).await {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(error)) => {
            return Finding::bad(WHAT, error.to_string(), "check SIGNALPOST_REDIS_URL and that the server runs");
        }
        Err(_) => {
            return Finding::bad(WHAT, "no answer within 5 s", "check SIGNALPOST_REDIS_URL and that the server runs");
        }
    };
    if inspected.max_memory_bytes > 0 && inspected.max_memory_policy != "noeviction" {
        let problem = format!(
            "version {}, maxmemory-policy {}: a full Redis drops buckets, and rate limits are exceeded",
            inspected.version, inspected.max_memory_policy
        );
        return Finding::bad(WHAT, problem, "set maxmemory-policy noeviction: full, we go on under local shares");
    }
    Finding::good(WHAT, format!("version {}, maxmemory-policy {}", inspected.version, inspected.max_memory_policy))
}
