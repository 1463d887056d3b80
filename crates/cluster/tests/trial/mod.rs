//! A cluster with a receiver, and a load that knows what was accepted. Shared by the end-to-end tests.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use signalpost_testkit::{
    Client, env, eventually,
    receiver::{Receiver, ReceiverSettings},
    services::{Cluster, ClusterSpec, cluster::ADMIN_KEY},
};
use tokio::task::JoinSet;

/// How long anything may take on a busy machine before a test gives up.
pub const LONG: Duration = Duration::from_secs(180);

pub struct Trial {
    pub cluster: Cluster,
    pub clients: Vec<Client>,
}

impl Trial {
    /// Starts everything and waits until the API is ready. Blocks this thread: the services live as long as it does.
    pub async fn start(apis: usize, dispatchers: usize, retries: usize) -> Self {
        let cluster = Cluster::start(&ClusterSpec {
            binaries: env::binaries(),
            cache: env::services_cache(),
            apis,
            dispatchers,
            retries,
            durable: false,
            env: Vec::new(),
        })
        .expect("the cluster starts");
        let clients: Vec<Client> = cluster.apis.iter().map(|api| Client::new(&api.url(), ADMIN_KEY)).collect();
        let trial = Self { cluster, clients };
        for client in &trial.clients {
            eventually("the api is ready", LONG, || client.get("/health/ready")).await;
        }
        trial
    }

    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Creates a destination at a path of the receiver, with its secret known there; its id.
    pub async fn destination(&self, receiver: &Receiver, path: &str, further: Value) -> String {
        let destination =
            self.client().create_destination(&receiver.url(path), further).await.expect("a destination is created");
        let secret = destination["secret"].as_str().expect("a secret");
        receiver.set_secret_at(path, secret).expect("a well-formed secret");
        destination["id"].as_str().expect("an id").to_owned()
    }
}

/// A receiver that remembers every id and keeps few bodies.
pub async fn receiver() -> Receiver {
    Receiver::start(ReceiverSettings { keep: 100, reject_invalid: true, ..ReceiverSettings::default() })
        .await
        .expect("a free port")
}

/// The retry policy of the fault tests: quick, patient.
pub fn patient_retry() -> Value {
    json!({"retry": {"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100, "jitter": 0.2}})
}

/// Producers that post events until they are told to stop, each event until it is accepted.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts `workers` producers, each with a pause between its events, spread over the API services.
    pub fn start(clients: &[Client], name: &str, workers: usize, pause: Duration) -> Self {
        let mut load =
            Self { stop: Arc::default(), count: Arc::default(), accepted: Arc::default(), tasks: JoinSet::new() };
        for worker in 0..workers {
            let client = clients[worker % clients.len()].clone();
            let (stop, count, accepted) = (Arc::clone(&load.stop), Arc::clone(&load.count), Arc::clone(&load.accepted));
            let name = name.to_owned();
            load.tasks.spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("{name}-{worker}-{number}");
                    let event = json!({"type": "load.posted", "data": {"key": key}});
                    let answer = client.post_event_surely(&event, &key, LONG).await.expect("accepted at last");
                    accepted.lock().expect("no poison").insert(answer["id"].as_str().expect("an id").to_owned());
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        load
    }

    /// How many were accepted so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until that many more are accepted.
    pub async fn more(&self, more: usize) {
        let wanted = self.count() + more;
        eventually("more events are accepted", LONG, || async move {
            let count = self.count();
            if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
        })
        .await;
    }

    /// Stops and gives the ids of all that were accepted.
    pub async fn finish(mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("a producer ends well");
        }
        let accepted = self.accepted.lock().expect("no poison").clone();
        assert_eq!(accepted.len(), self.count(), "two keys were answered with one event");
        accepted
    }
}

/// Waits until every one of these events was answered with 2xx by the receiver, then checks that no other arrived.
pub async fn all_arrive(receiver: &Receiver, accepted: &BTreeSet<String>) {
    eventually("every accepted event arrives", LONG, || async {
        let arrived = receiver.accepted_by_event();
        let missing: Vec<&String> =
            accepted.iter().filter(|id| arrived.get(*id).is_none_or(|count| *count == 0)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{} missing, such as {:?}", missing.len(), &missing[..missing.len().min(3)]))
        }
    })
    .await;
    let strangers = receiver.accepted_by_event().keys().filter(|id| !accepted.contains(*id)).count();
    assert_eq!(strangers, 0, "events arrived that nobody was told of: a repeated key made a second event");
    assert_eq!(receiver.stats().invalid, 0, "a signature was wrong");
}
