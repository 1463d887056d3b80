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

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signalpost_testkit::{
    Client, env, eventually,
    receiver::{Arrival, Receiver, ReceiverSettings},
    services::{Cluster, ClusterSpec, Kind, Service, cluster::ADMIN_KEY},
};
use tokio::{task::JoinSet, time::Instant};

/// How long anything may take on a busy machine before a test gives up.
pub const LONG: Duration = Duration::from_secs(180);

/// Over how many destinations a load spreads: more than there are partitions.
pub const SPREAD: usize = 24;

pub struct Trial {
    pub cluster: Cluster,
    pub clients: Vec<Client>,
}

impl Trial {
    /// Starts everything and waits until the API is ready. Blocks this thread: the services live as long as it does.
    pub async fn start(apis: usize, dispatchers: usize, retries: usize) -> Self {
        Self::on(Cluster::start(&ClusterSpec { apis, dispatchers, retries, ..spec() }).expect("the cluster starts"))
            .await
    }

    /// With a cluster that runs already, as soon as its API services are ready.
    pub async fn on(cluster: Cluster) -> Self {
        let clients: Vec<Client> = cluster.apis.iter().map(|api| Client::new(&api.url(), ADMIN_KEY)).collect();
        for api in &cluster.apis {
            ready(api).await;
        }
        Self { cluster, clients }
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

/// A cluster of the binaries under test, with no service yet.
pub fn spec() -> ClusterSpec {
    ClusterSpec {
        binaries: env::binaries(),
        cache: env::services_cache(),
        apis: 0,
        dispatchers: 0,
        retries: 0,
        durable: false,
        env: Vec::new(),
    }
}

/// Waits until a service says that it is ready.
pub async fn ready(service: &Service) {
    let client = Client::new(&service.url(), ADMIN_KEY);
    eventually(&format!("{} is ready", service.name()), LONG, || client.get("/health/ready")).await;
}

/// SIGTERM, a drained end with exit code 0, a new start, ready. Beside the load, so that this thread may block.
pub async fn roll(trial: &mut Trial, kind: Kind, index: usize) {
    let service = &mut trial.cluster.of(kind)[index];
    tokio::task::block_in_place(|| service.stop().and_then(|()| service.restart())).expect("stopped and started again");
    ready(&trial.cluster.of(kind)[index]).await;
}

/// Fails where a service has ended by itself.
pub fn all_run(trial: &mut Trial) {
    for service in trial.cluster.services() {
        let name = service.name().to_owned();
        let process = service.process.as_mut().expect("not stopped by us");
        assert!(process.is_running(), "{name} ended; its log ends:\n{}", process.log_tail());
    }
}

/// Waits until these destinations have that many deliveries, all of them delivered: so nothing of them will be sent again.
pub async fn settled(client: &Client, destinations: &[String], deliveries: usize) {
    eventually("every delivery is delivered", LONG, || async {
        let mut delivered = 0;
        for destination in destinations {
            delivered += delivered_of(client, destination).await?;
        }
        if delivered == deliveries as u64 { Ok(()) } else { Err(format!("{delivered} of {deliveries} are delivered")) }
    })
    .await;
}

/// How many deliveries of a destination are delivered, where none is open.
async fn delivered_of(client: &Client, destination: &str) -> Result<u64, String> {
    for status in ["pending", "retrying"] {
        let path = format!("/v1/deliveries?destination_id={destination}&status={status}&limit=1");
        let open = client.get(&path).await.map_err(|error| error.to_string())?;
        if open["data"] != json!([]) {
            return Err(open.to_string());
        }
    }
    let selection = json!({"destination_id": destination, "statuses": ["delivered"], "dry_run": true});
    let counted = client.post("/v1/replays", &selection).await.map_err(|error| error.to_string())?;
    counted["matched"].as_u64().ok_or_else(|| counted.to_string())
}

/// The type of the n-th event of a load: each goes to another destination, and so to all partitions in turn.
fn load_type(number: usize) -> String {
    format!("load.posted.{}", number % SPREAD)
}

/// Where a load goes: one receiver, [`SPREAD`] destinations.
pub struct Target {
    pub receiver: Receiver,
    pub destinations: Vec<String>,
}

impl Target {
    /// Creates the destinations, at paths that begin with `name`.
    pub async fn new(trial: &Trial, name: &str) -> Self {
        let receiver = receiver().await;
        let mut destinations = Vec::with_capacity(SPREAD);
        for number in 0..SPREAD {
            let mut further = patient_retry();
            further["event_types"] = json!([load_type(number)]);
            destinations.push(trial.destination(&receiver, &format!("/{name}/{number}"), further).await);
        }
        Self { receiver, destinations }
    }

    /// Posts one event for each destination, and so for each partition, and waits until all arrive; their ids, and how long
    /// that took.
    pub async fn moving(&self, client: &Client, key: &str) -> (BTreeSet<String>, Duration) {
        let since = Instant::now();
        let key = key.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let probes = (0..SPREAD).map(|number| {
            let (client, key) = (client.clone(), format!("{key}-{number}"));
            async move {
                let event = json!({"type": load_type(number), "data": {"probe": key}});
                client.post_event_surely(&event, &key, LONG).await.expect("accepted")
            }
        });
        let mut ids = BTreeSet::new();
        for answer in probes.collect::<JoinSet<_>>().join_all().await {
            ids.insert(answer["id"].as_str().expect("an id").to_owned());
        }
        self.has(&ids).await;
        (ids, since.elapsed())
    }

    /// Waits until every one of these events was answered with 2xx by the receiver.
    pub async fn has(&self, accepted: &BTreeSet<String>) {
        eventually("every accepted event arrives", LONG, || async {
            let arrived = self.receiver.accepted_by_event();
            let missing: Vec<&String> =
                accepted.iter().filter(|id| arrived.get(*id).is_none_or(|count| *count == 0)).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{} missing, such as {:?}", missing.len(), &missing[..missing.len().min(3)]))
            }
        })
        .await;
    }

    /// Waits until everything accepted has arrived and nothing is left that could still come; then deletes the
    /// destinations. Says how it went; the number of duplicates.
    pub async fn over(&self, client: &Client, what: &str, accepted: &BTreeSet<String>) -> u64 {
        let since = Instant::now();
        self.has(accepted).await;
        let strangers = self.receiver.accepted_by_event().keys().filter(|id| !accepted.contains(*id)).count();
        assert_eq!(strangers, 0, "events arrived that nobody was told of: a repeated key made a second event");
        assert_eq!(self.receiver.stats().invalid, 0, "a signature was wrong");
        settled(client, &self.destinations, accepted.len()).await;
        let stats = self.receiver.stats();
        println!(
            "{what}: {} events, {} duplicates, {} requests, all settled {:.1} s after the load ended",
            accepted.len(),
            stats.duplicates,
            stats.requests,
            since.elapsed().as_secs_f64()
        );
        for destination in &self.destinations {
            let path = format!("/v1/destinations/{destination}");
            let (status, answer) = client.request(Method::DELETE, &path, None, &[]).await.expect("an answer");
            assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
        }
        stats.duplicates
    }
}

/// The deliveries of which more than one request came, each with its requests.
pub fn repeated(receiver: &Receiver) -> Vec<(String, Vec<Arrival>)> {
    let mut repeated: Vec<_> = receiver.by_delivery().into_iter().filter(|(_, arrivals)| arrivals.len() > 1).collect();
    repeated.sort_by(|(one, _), (other, _)| one.cmp(other));
    repeated
}

/// A receiver that remembers every id and keeps few bodies.
pub async fn receiver() -> Receiver {
    Receiver::start(ReceiverSettings { keep: 100, reject_invalid: true, ..ReceiverSettings::default() })
        .await
        .expect("a free port")
}

/// The retry policy of the fault tests: quick, patient, and nothing waits for a circuit.
pub fn patient_retry() -> Value {
    json!({
        "retry": {"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100, "jitter": 0.2},
        "circuit": {"enabled": false},
    })
}

/// Producers that post events until they are told to stop, each event until it is accepted.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts `workers` producers, each with a pause between its events, spread over the API services. Where one does not
    /// answer, its producers turn to the next, with the same key.
    pub fn start(clients: &[Client], name: &str, workers: usize, pause: Duration) -> Self {
        let mut load =
            Self { stop: Arc::default(), count: Arc::default(), accepted: Arc::default(), tasks: JoinSet::new() };
        for worker in 0..workers {
            let clients = clients.to_vec();
            let (stop, count, accepted) = (Arc::clone(&load.stop), Arc::clone(&load.count), Arc::clone(&load.accepted));
            let name = name.to_owned();
            load.tasks.spawn(async move {
                for number in 0_usize.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("{name}-{worker}-{number}");
                    let event = json!({"type": load_type(worker + number), "data": {"key": key}});
                    let answer = post_somewhere(&clients, worker, &event, &key).await;
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

    /// The ids of all that were accepted so far.
    pub fn so_far(&self) -> BTreeSet<String> {
        self.accepted.lock().expect("no poison").clone()
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
        let accepted = self.so_far();
        assert_eq!(accepted.len(), self.count(), "two keys were answered with one event");
        accepted
    }
}

/// Posts an event to one of the services until it is accepted.
async fn post_somewhere(clients: &[Client], first: usize, event: &Value, key: &str) -> Value {
    let deadline = Instant::now() + LONG;
    let patience = if clients.len() == 1 { LONG } else { Duration::from_secs(1) };
    for client in clients.iter().cycle().skip(first % clients.len()) {
        match client.post_event_surely(event, key, patience).await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "not accepted within {LONG:?}: {error:#}"),
        }
    }
    unreachable!("the services are asked in turn for ever")
}
