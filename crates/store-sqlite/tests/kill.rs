//! After `kill -9`, all that was answered is there.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use signalpost_core::{
    Clock as _, DeliveryId, DeliveryState, DestinationId, Event, EventId, EventMeta, Guarantee, OutboxId, TenantId,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{
    DispatchStore as _, IngestStore as _, ReadStore as _,
    dispatch::{Attempt, DeliveryWrite, Next, Target},
    ingest::{IngestGroup, IngestUnit, NewDelivery, NewEvent, Start},
};
use signalpost_store_sqlite::SqliteStore;
use tempfile::TempDir;

/// Set in the process that is going to be killed: where its database is.
const FILE: &str = "SIGNALPOST_KILLED_STORE";

fn open(file: impl AsRef<Path>) -> SqliteStore {
    SqliteStore::open(file, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap()
}

/// Writes events and outcomes for ever, and tells of each after it was answered.
async fn write_until_killed(store: SqliteStore) {
    loop {
        let now = SystemClock::new().now();
        let id = EventId::new(now, &SystemEntropy);
        let target = Target {
            delivery_id: DeliveryId::new(now, &SystemEntropy),
            tenant_id: TenantId::DEFAULT,
            destination_id: DestinationId::new(now, &SystemEntropy),
            event_id: id,
            lease: None,
        };
        let event = Event {
            id,
            tenant_id: TenantId::DEFAULT,
            event_type: "order.created".into(),
            uid: None,
            source: None,
            meta: EventMeta::default(),
            data: Bytes::from(vec![b'1'; 3000]),
        };
        let delivery = NewDelivery {
            id: target.delivery_id,
            destination_id: target.destination_id,
            start: Start::Queued,
            lane: None,
            guarantee: Guarantee::AtLeastOnce,
        };
        let new = NewEvent {
            event: Arc::new(event),
            deliveries: vec![delivery],
            fan_out: Vec::new(),
            uid: None,
            answer: Bytes::new(),
        };
        let unit = IngestUnit { tenant: TenantId::DEFAULT, routing_version: 0, claim: None, events: vec![new] };
        let outbox_id = OutboxId::new(now, &SystemEntropy);
        store.ingest(&IngestGroup { units: vec![unit], outbox_id, published: Vec::new() }).await.unwrap();
        tell(&format!("\naccepted {}", target.delivery_id));
        let attempt = Attempt {
            number: 1,
            started_at: now,
            duration: std::time::Duration::ZERO,
            outcome: signalpost_core::AttemptOutcome::Delivered,
            status_code: Some(200),
            response_excerpt: Bytes::new(),
            error: None,
        };
        store.write(&[DeliveryWrite::Attempt { target, attempt, next: Next::Delivered }], false).await.unwrap();
        tell(&format!("\ndelivered {}", target.delivery_id));
    }
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

#[test]
fn what_was_answered_survives_a_kill() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(file) = std::env::var(FILE) {
        runtime.block_on(write_until_killed(open(file)));
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("signalpost.db");
    let mut told = Vec::new();
    // The first is over before there is a checkpoint, the last after the log began again.
    for lines in [40, 200, 1_500] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_answered_survives_a_kill", "--nocapture"])
            .env(FILE, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((state, id)) = line.split_once(' ').filter(|(_, id)| id.starts_with("dlv_")) {
                told.push((state == "delivered", id.parse::<DeliveryId>().unwrap()));
                seen += 1;
                if seen == lines {
                    child.kill().unwrap();
                }
            }
        }
        assert!(!child.wait().unwrap().success(), "it was killed");
        assert!(seen >= lines, "it wrote until then");
        runtime.block_on(async {
            let store = open(&file);
            for (delivered, id) in &told {
                let standing = store.examine(&[*id]).await.unwrap()[0].expect("it was answered");
                assert!(matches!(standing.state, DeliveryState::Queued | DeliveryState::Delivered));
                assert!(!delivered || (standing.state, standing.attempts) == (DeliveryState::Delivered, 1));
                let view = store.delivery(TenantId::DEFAULT, *id).await.unwrap().unwrap();
                assert!(store.event(TenantId::DEFAULT, view.event_id).await.unwrap().is_some());
            }
        });
    }
}
