//! Records what this version leaves behind in PostgreSQL and Kafka, for the test that later versions take it up
//! (`tests/compat.rs`): a small cluster is driven until there is something of every kind, and stopped in the middle of its work.
//!
//! ```text
//! SIGNALPOST_TEST_SERVICES_CACHE=$PWD/target/services cargo run -p signalpost-cluster --example record_fixture -- FOLDER [BINARIES]
//! ```
//!
//! `BINARIES`: the folder with the programs of the version to record, with the feature `cluster`; this build's, where not given.
//! To be run when a version is about to change the schema or the envelope, with the version before.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
};
use reqwest::Method;
use serde_json::{Value, json};
use signalpost_testkit::{
    Client, env, eventually,
    receiver::{Failure, Faults, Receiver, ReceiverSettings},
    services::{Cluster, ClusterSpec, cluster::ADMIN_KEY},
};

const LONG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().context("which folder?")?);
    let binaries = args.next().map_or_else(env::binaries, PathBuf::from);
    fs::create_dir_all(&folder)?;
    let spec = ClusterSpec {
        binaries,
        cache: env::services_cache(),
        apis: 1,
        dispatchers: 1,
        retries: 1,
        durable: false,
        env: vec![("SIGNALPOST_KAFKA_PARTITIONS".to_owned(), "4".to_owned())],
    };
    let cluster = Cluster::start(&spec)?;
    let client = Client::new(&cluster.apis[0].url(), ADMIN_KEY);
    eventually("ready", LONG, || client.get("/health/ready")).await;
    let receiver = Receiver::start(ReceiverSettings::default()).await?;
    let mut recorder = Recorder { cluster, client, receiver, expected: json!({}) };
    recorder.what_ended().await?;
    recorder.what_is_under_way().await?;
    recorder.write(&folder).await
}

struct Recorder {
    cluster: Cluster,
    client: Client,
    receiver: Receiver,
    /// What the test is to find.
    expected: Value,
}

impl Recorder {
    /// Everything that is over, or that waits for a person.
    async fn what_ended(&mut self) -> anyhow::Result<()> {
        self.destination("ok", json!({"headers": {"x-kept": "yes"}})).await?;
        let delivered = [self.post("ok").await?, self.post("ok").await?];
        self.expect("delivered", &delivered);
        let event =
            json!({"type": "ok", "uid": "once", "source": "shop", "data": {"n": 1}, "labels": {"region": "eu"}});
        let (_, answer) =
            self.client.request(Method::POST, "/v1/events", Some(&event), &[("idempotency-key", "a-key")]).await?;
        self.expected["idempotent"] = json!({"key": "a-key", "event": event, "answer": answer});

        self.receiver.set_faults_at("/again", Some(Faults::always(Failure::status(400))));
        let again = self.destination("again", json!({})).await?;
        self.post("again").await?;
        self.dead_letters(&again, 1).await;
        self.receiver.set_faults_at("/again", None);
        let job = self.client.post("/v1/replays", &json!({"destination_id": again})).await?;
        let path = format!("/v1/replays/{}", text(&job["id"])?);
        eventually("replayed", LONG, || async {
            let job = self.client.get(&path).await.map_err(|error| error.to_string())?;
            if job["state"] == "completed" { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
        self.expected["completed_replay"] = job["id"].clone();

        self.receiver.set_faults_at("/dead", Some(Faults::always(Failure::status(400))));
        let dead = self.destination("dead", json!({})).await?;
        let events = [self.post("dead").await?, self.post("dead").await?];
        self.dead_letters(&dead, 2).await;
        self.expect("dead", &events);

        self.receiver.set_faults_at("/gone", Some(Faults::always(Failure::status(410))));
        let gone = self.destination("gone", json!({})).await?;
        self.post("gone").await?;
        eventually("disabled", LONG, || async {
            let destination =
                self.client.get(&format!("/v1/destinations/{gone}")).await.map_err(|error| error.to_string())?;
            if destination["state"] == "disabled" { Ok(()) } else { Err(destination.to_string()) }
        })
        .await;

        let paused = self.destination("paused", json!({})).await?;
        self.client.post(&format!("/v1/destinations/{paused}/pause"), &json!({})).await?;
        let events = [self.post("paused").await?, self.post("paused").await?];
        self.expect("paused", &events);
        let cancelled = self.post("paused").await?;
        let deliveries = self.client.get(&format!("/v1/events/{cancelled}/deliveries")).await?;
        let delivery = text(&deliveries["data"][0]["id"])?.to_owned();
        self.client.post(&format!("/v1/deliveries/{delivery}/cancel"), &json!({})).await?;
        self.expect("cancelled", &[cancelled]);

        let deleted = self.destination("deleted", json!({})).await?;
        self.post("deleted").await?;
        self.receiver.wait_until(LONG, |stats| stats.accepted >= 5).await?;
        self.client.request(Method::DELETE, &format!("/v1/destinations/{deleted}"), None, &[]).await?;
        Ok(())
    }

    /// Everything that the next version has to take up, in the states in which a stop finds it.
    async fn what_is_under_way(&mut self) -> anyhow::Result<()> {
        let mut open = Vec::new();
        // Waiting for its retry, for long and not for long.
        let retry = |ms: u64| json!({"retry": {"strategy": "schedule", "delays_ms": vec![ms; 50]}});
        self.receiver.set_faults(Faults::always(Failure::status(500)));
        self.destination("later", retry(3_600_000)).await?;
        let soon = self.destination("soon", retry(4_000)).await?;
        open.push(self.post("later").await?);
        open.push(self.post("soon").await?);
        self.receiver.set_faults_at("/job", Some(Faults::always(Failure::status(400))));
        let job = self.destination("job", json!({})).await?;
        for _ in 0..4 {
            open.push(self.post("job").await?);
        }
        self.dead_letters(&job, 4).await;
        for event in &open[..2] {
            eventually("tried", LONG, || async {
                let attempts = self.client.get(&format!("/v1/events/{event}/attempts")).await;
                let attempts = attempts.map_err(|error| error.to_string())?;
                if attempts["data"][0].is_null() { Err(attempts.to_string()) } else { Ok(()) }
            })
            .await;
        }
        self.cluster.dispatchers[0].kill()?;
        // A replay that is not through, and what retry has fed to the bus.
        let running = json!({"destination_id": job, "rate_per_second": 0.5});
        let running = self.client.post("/v1/replays", &running).await?;
        let path = format!("/v1/replays/{}", text(&running["id"])?);
        eventually("under way", LONG, || async {
            let job = self.client.get(&path).await.map_err(|error| error.to_string())?;
            if job["replayed"].as_u64() > Some(0) { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
        self.expected["running_replay"] = running["id"].clone();
        let mut topic = Topic::open(&self.cluster.kafka.brokers())?;
        topic.read_until(|messages| messages.iter().any(|message| message.is_fed_to(&soon)))?;
        self.cluster.retries[0].kill()?;
        // On the bus: whole, by reference, and such that the bus loses.
        open.push(self.post("ok").await?);
        let large = json!({"type": "ok", "data": {"filling": "x".repeat(70_000)}});
        open.push(text(&self.client.post("/v1/events", &large).await?["id"])?.to_owned());
        topic.read_until(|messages| messages.iter().any(|message| message.is_by_reference()))?;
        let lost = [self.post("ok").await?, self.post("again").await?];
        topic.read_until(|messages| lost.iter().all(|id| messages.iter().any(|message| message.is_of(id))))?;
        let fan_out = self.post("nobody").await?;
        // Only in the outbox.
        self.cluster.kafka.halt()?;
        open.push(self.post("ok").await?);
        open.push(self.post("again").await?);
        self.cluster.apis[0].kill()?;
        open.extend(lost.iter().cloned());
        self.expect("open", &open);
        self.expected["fan_out"] = json!({"event": fan_out, "deliveries": 2});
        let written: Vec<Value> =
            topic.messages.iter().filter(|message| !lost.iter().any(|id| message.is_of(id))).map(Found::json).collect();
        // What was delivered before is committed, so it would not be read again; here it is: it must be recognised.
        self.expected["messages"] = json!(written);
        // A fan-out is written by the API only for more than 1,000 destinations; this is its form.
        self.cluster.postgres.run_sql(
            "postgres",
            "INSERT INTO fan_outs (event_id, tenant_id, destination_ids)
             SELECT (SELECT id FROM events WHERE type = 'nobody'), '00000000-0000-7000-8000-000000000001',
                    string_agg(uuid_send(id), ''::bytea ORDER BY id)
             FROM destinations WHERE spec->>'name' IN ('ok', 'again')",
        )
    }

    async fn write(mut self, folder: &std::path::Path) -> anyhow::Result<()> {
        let postgres = &self.cluster.postgres;
        let migrations = postgres.dump("postgres", &["--inserts", "--no-owner", "-t", "_sqlx_migrations"])?;
        let rows = postgres.dump(
            "postgres",
            &["--data-only", "--column-inserts", "--load-via-partition-root", "--no-owner", "-T", "_sqlx_migrations"],
        )?;
        let mut sql = "DELETE FROM tenants; DELETE FROM marks;\n".to_owned();
        for line in migrations.lines().chain(rows.lines()) {
            // What newer versions of pg_dump say to newer ones of psql, and what empties the search path.
            let is_noise = line.is_empty() || line.starts_with("--") || line.starts_with('\\');
            if !is_noise && !line.starts_with("SET ") && !line.contains("pg_catalog.set_config") {
                sql.push_str(line);
                sql.push('\n');
            }
        }
        let sql = sql.replace(&self.receiver.addr().to_string(), "RECEIVER");
        for table in [
            "tenants",
            "destinations",
            "events",
            "deliveries",
            "attempts",
            "waiting",
            "queues",
            "outbox",
            "fan_outs",
            "idempotency",
            "dead_letters",
            "replays",
            "marks",
        ] {
            ensure!(sql.contains(&format!("INSERT INTO public.{table} ")), "nothing in {table}");
        }
        fs::write(folder.join("rows.sql"), sql)?;
        let messages = self.expected["messages"].take();
        let lines: Vec<String> = messages.as_array().into_iter().flatten().map(Value::to_string).collect();
        fs::write(folder.join("messages.ndjson"), lines.join("\n") + "\n")?;
        if let Some(expected) = self.expected.as_object_mut() {
            expected.remove("messages");
        }
        fs::write(folder.join("expected.json"), serde_json::to_string_pretty(&self.expected)? + "\n")?;
        println!("{}: {} messages", folder.display(), lines.len());
        Ok(())
    }

    async fn destination(&mut self, name: &str, further: Value) -> anyhow::Result<String> {
        let mut body = further;
        body["name"] = json!(name);
        body["event_types"] = json!([name]);
        let created = self.client.create_destination(&self.receiver.url(name), body).await?;
        let id = text(&created["id"])?.to_owned();
        self.expected["destinations"][name] = json!(id);
        Ok(id)
    }

    async fn post(&self, event_type: &str) -> anyhow::Result<String> {
        let event = json!({"type": event_type, "data": {"of": event_type}});
        Ok(text(&self.client.post("/v1/events", &event).await?["id"])?.to_owned())
    }

    async fn dead_letters(&self, destination: &str, wanted: usize) {
        eventually("dead", LONG, || async {
            let path = format!("/v1/dead-letters?destination_id={destination}");
            let list = self.client.get(&path).await.map_err(|error| error.to_string())?;
            let count = list["data"].as_array().map_or(0, Vec::len);
            if count == wanted { Ok(()) } else { Err(list.to_string()) }
        })
        .await;
    }

    fn expect(&mut self, what: &str, events: &[String]) {
        let events: BTreeSet<&String> = events.iter().collect();
        self.expected[what] = json!(events);
    }
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("no text: {value}"))
}

/// All messages of the topic of deliveries.
struct Topic {
    consumer: BaseConsumer,
    messages: Vec<Found>,
}

/// A message: its key, headers, head and data.
struct Found {
    key: String,
    headers: Vec<(String, String)>,
    head: String,
    data: String,
}

impl Topic {
    fn open(brokers: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "recorder")
            .set("auto.offset.reset", "earliest")
            .create()?;
        consumer.subscribe(&["signalpost.deliveries"])?;
        Ok(Self { consumer, messages: Vec::new() })
    }

    fn read_until(&mut self, done: impl Fn(&[Found]) -> bool) -> anyhow::Result<()> {
        #[allow(clippy::disallowed_methods, reason = "real processes take real time")]
        let now = Instant::now;
        let deadline = now() + LONG;
        while !done(&self.messages) {
            ensure!(now() < deadline, "not on the topic");
            if let Some(message) = self.consumer.poll(Duration::from_millis(100)) {
                self.messages.push(Found::of(&message?)?);
            }
        }
        Ok(())
    }
}

impl Found {
    fn of(message: &rdkafka::message::BorrowedMessage<'_>) -> anyhow::Result<Self> {
        let value = message.payload().context("no value")?;
        let (length, rest) = value.split_first_chunk::<4>().context("cut off")?;
        let (head, data) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let headers = message.headers().context("no headers")?;
        let headers = headers.iter().map(|header| {
            let value = String::from_utf8(header.value.unwrap_or_default().to_vec())?;
            anyhow::Ok((header.key.to_owned(), value))
        });
        Ok(Self {
            key: String::from_utf8(message.key().unwrap_or_default().to_vec())?,
            headers: headers.collect::<Result<_, _>>()?,
            head: String::from_utf8(head.to_vec())?,
            data: String::from_utf8(data.to_vec())?,
        })
    }

    fn json(&self) -> Value {
        json!({"key": self.key, "headers": self.headers, "head": self.head, "data": self.data})
    }

    fn is_of(&self, event: &str) -> bool {
        self.head.contains(event)
    }

    fn is_fed_to(&self, destination: &str) -> bool {
        self.key == destination && self.head.contains(r#""feed""#)
    }

    fn is_by_reference(&self) -> bool {
        self.head.contains(r#""by_reference":true"#)
    }
}
