//! Machines whose clocks differ by a minute or two: one dispatcher is ahead, one behind, retry is ahead. What is due is the
//! store's to say, so everything is delivered once, pauses are kept, and nothing expires. (An API whose clock is off is not
//! ready: it makes ids.)

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use signalpost_testkit::{
    Client, eventually,
    receiver::{Arrival, Failure, Faults},
    services::{Cluster, ClusterSpec, Kind, Own, Service, cluster::ADMIN_KEY},
};
use trial::{LONG, Load, Target, Trial, all_run, ready, spec};

/// How far a clock is off.
const OFF: i64 = 60_000;

fn off_by(offset_ms: i64) -> Own {
    Own::default().env("SIGNALPOST_TEST_CLOCK_OFFSET_MS", offset_ms.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_change_nothing() {
    let cluster = tokio::task::block_in_place(|| {
        let mut cluster = Cluster::start(&ClusterSpec { apis: 1, ..spec() })?;
        cluster.add(Kind::Dispatcher, &off_by(OFF))?;
        cluster.add(Kind::Dispatcher, &off_by(-OFF))?;
        cluster.add(Kind::Retry, &off_by(OFF))?;
        anyhow::Ok(cluster)
    });
    let mut trial = Trial::on(cluster.expect("it starts")).await;
    for service in trial.cluster.dispatchers.iter().chain(&trial.cluster.retries) {
        ready(service).await;
    }
    everything_is_delivered_once_with_its_pauses(&trial).await;
    an_api_that_is_off_is_not_ready(&mut trial).await;
    all_run(&mut trial);
}

async fn everything_is_delivered_once_with_its_pauses(trial: &Trial) {
    let target = Target::new(trial, "clocks").await;
    // Each delivery needs four attempts: the later ones come by retry's feed, to whichever dispatcher.
    target.receiver.set_faults(Faults::first(3, Failure::status(500)).with_latency(Duration::from_millis(5)));
    let load = Load::start(&trial.clients, "clocks", 8, Duration::from_millis(10));
    load.more(1_000).await;
    for dispatcher in &trial.cluster.dispatchers {
        takes_part(dispatcher).await;
    }
    let accepted = load.finish().await;
    let duplicates = target.over(trial.client(), "clocks a minute off", &accepted).await;
    assert_eq!(duplicates, 0, "sent again after it had arrived");
    assert_eq!(target.receiver.stats().requests, 4 * accepted.len() as u64, "one request more or less than attempts");
    let dead = trial.client().get("/v1/dead-letters").await.expect("a list");
    assert_eq!(dead["data"], json!([]), "something expired");

    let histories = target.receiver.by_delivery();
    for attempt in 1..=3 {
        let mut pauses: Vec<Duration> =
            histories.values().filter_map(|arrivals| pause_before(arrivals, attempt)).collect();
        pauses.sort_unstable();
        let (shortest, middle, longest) = (pauses[0], pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
        println!("pause {attempt}: {shortest:?} to {longest:?}, median {middle:?}");
        // 50 ms × 1.5^n, jittered by a fifth; and nowhere near the minute that the clocks are off.
        let least = Duration::from_millis(40).mul_f64(1.5_f64.powi(i32::try_from(attempt).unwrap() - 1));
        assert!(shortest >= least, "pause {attempt} was {shortest:?}, less than {least:?}");
        assert!(longest < Duration::from_secs(40), "pause {attempt} was {longest:?}");
    }
}

fn pause_before(arrivals: &[Arrival], attempt: usize) -> Option<Duration> {
    Some(arrivals.get(attempt)?.since_start.saturating_sub(arrivals[attempt - 1].since_start))
}

/// Waits until a dispatcher has delivered something.
async fn takes_part(dispatcher: &Service) {
    let client = Client::new(&dispatcher.url(), ADMIN_KEY);
    eventually("it delivers", LONG, || async {
        let delivered = client.metric("signalpost_deliveries_delivered_total").await.map_err(|e| e.to_string())?;
        if delivered > 0.0 { Ok(()) } else { Err(delivered.to_string()) }
    })
    .await;
}

async fn an_api_that_is_off_is_not_ready(trial: &mut Trial) {
    let added = tokio::task::block_in_place(|| trial.cluster.add(Kind::Api, &off_by(OFF)).map(|api| api.url()));
    let client = Client::new(&added.expect("it starts"), ADMIN_KEY);
    eventually("it says why", LONG, || async {
        let (status, report) =
            client.request(Method::GET, "/health/ready", None, &[]).await.map_err(|error| error.to_string())?;
        // It is never ready; a look that took too long may say only that.
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{report}");
        if report.to_string().contains("off the store's") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
}
