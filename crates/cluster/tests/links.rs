//! Each connection between one of our services and something it needs: cut, slowed, and silent, under load. No service is
//! restarted; everything that was accepted arrives. One of two dispatchers is behind the faulty links, so the other one takes
//! over what it must let go, and has to be told apart from it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use signalpost_testkit::{
    env,
    proxy::{Mode, Proxy},
    receiver::{Failure, Faults},
    services::{Cluster, Ground, Kind, Own, free_port, kafka::Listener},
};
use tokio::time::{Instant, sleep};
use trial::{Load, Target, Trial, all_run, ready, spec};

/// Both directions of a slow link.
const SLOW: Duration = Duration::from_millis(150);

/// A service's three connections.
struct Links {
    service: Kind,
    postgres: Proxy,
    redis: Proxy,
    kafka: Proxy,
}

impl Links {
    fn own(&self) -> Own {
        Own::default()
            .env("SIGNALPOST_DATABASE_URL", format!("postgres://postgres@{}/postgres", self.postgres.addr()))
            .env("SIGNALPOST_REDIS_URL", format!("redis://{}", self.redis.addr()))
            .env("SIGNALPOST_KAFKA_BROKERS", self.kafka.addr().to_string())
    }

    fn each(&self) -> Vec<(&'static str, &Proxy)> {
        let mut links = vec![("PostgreSQL", &self.postgres), ("Kafka", &self.kafka)];
        // Retry uses no limits.
        if self.service != Kind::Retry {
            links.push(("Redis", &self.redis));
        }
        links
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_links_heal_by_themselves() {
    let (mut trial, services) = start().await;
    let target = Target::new(&trial, "links").await;
    // So that retry has something to do.
    target.receiver.set_faults(Faults::some(0.1, Failure::status(500)));
    let load = Load::start(&trial.clients, "links", 8, Duration::from_millis(20));
    load.more(100).await;
    let mut probes = BTreeSet::new();
    for links in &services {
        for (other, proxy) in links.each() {
            for (fault, mode) in [("cut", Mode::Cut), ("slow", Mode::Slow(SLOW)), ("silent", Mode::Silent)] {
                let what = format!("{} and {other}, {fault}", links.service.name());
                probes.append(&mut broken(&trial, &target, &load, &what, proxy, mode).await);
                all_run(&mut trial);
            }
        }
    }
    load.more(100).await;
    let mut accepted = load.finish().await;
    accepted.append(&mut probes);
    let duplicates = target.over(trial.client(), "each link cut, slow and silent", &accepted).await;
    // Where a dispatcher loses its partitions and cannot say what it has sent, that is sent again: no more than it can have out.
    assert!(duplicates <= 200, "{duplicates} duplicates");
    all_run(&mut trial);
}

/// A cluster of which each kind of service has one behind proxies.
async fn start() -> (Trial, Vec<Links>) {
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut listeners = Vec::new();
    let mut kafkas = Vec::new();
    let kinds = [Kind::Api, Kind::Dispatcher, Kind::Retry];
    for _ in kinds {
        // The broker is started after its proxies: it tells its clients their ports.
        let port = free_port().expect("a port");
        let proxy = Proxy::start(local(port)).await.expect("a proxy");
        listeners.push(Listener { port, advertised: proxy.addr().port() });
        kafkas.push(proxy);
    }
    let ground = Ground::start(&env::services_cache(), false, &listeners).expect("PostgreSQL, Redis and Kafka start");
    let (postgres, redis) = (local(ground.postgres.port()), local(ground.redis.port()));
    let mut services = Vec::new();
    for (service, kafka) in kinds.into_iter().zip(kafkas) {
        let postgres = Proxy::start(postgres).await.expect("a proxy");
        let redis = Proxy::start(redis).await.expect("a proxy");
        services.push(Links { service, postgres, redis, kafka });
    }
    let cluster = tokio::task::block_in_place(|| {
        let mut cluster = Cluster::start_on(ground, &spec())?;
        for links in &services {
            cluster.add(links.service, &links.own())?;
        }
        cluster.add(Kind::Dispatcher, &Own::default())?;
        anyhow::Ok(cluster)
    });
    let trial = Trial::on(cluster.expect("our services start")).await;
    for service in trial.cluster.dispatchers.iter().chain(&trial.cluster.retries) {
        ready(service).await;
    }
    (trial, services)
}

/// One link, one fault; then waits until what was accepted so far has arrived. The ids of the probes.
async fn broken(
    trial: &Trial,
    target: &Target,
    load: &Load,
    what: &str,
    proxy: &Proxy,
    mode: Mode,
) -> BTreeSet<String> {
    let before = (load.count(), target.receiver.stats());
    proxy.set(mode);
    sleep(duration(mode)).await;
    let meanwhile = (load.count(), target.receiver.stats());
    proxy.set(Mode::Open);
    let over = Instant::now();
    let (probes, moving) = target.moving(trial.client(), what).await;
    target.has(&load.so_far()).await;
    let arrived = over.elapsed();
    println!(
        "{what}: {} accepted and {} delivered meanwhile; moving after {:.1} s, all there after {:.1} s; {} duplicates",
        meanwhile.0 - before.0,
        meanwhile.1.events_accepted - before.1.events_accepted,
        moving.as_secs_f64(),
        arrived.as_secs_f64(),
        target.receiver.stats().duplicates - before.1.duplicates
    );
    probes
}

/// How long a fault lasts: silence longer, as it is only noticed by time-outs.
fn duration(mode: Mode) -> Duration {
    let times = if env::long() { 4 } else { 1 };
    times * if mode == Mode::Silent { Duration::from_millis(3_100) } else { Duration::from_millis(700) }
}
