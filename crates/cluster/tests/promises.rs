//! What a destination may ask for, on a whole cluster with two dispatchers of which one is killed again and again: order by
//! key, at most once, a circuit; and a change that applies to what waits already.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod trial;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::{Value, json};
use signalpost_testkit::{
    Client, eventually,
    receiver::{Arrival, Failure, Faults, Receiver},
};
use trial::{LONG, Trial, all_run, patient_retry, receiver, settled};

const LANES: usize = 40;
const OF_EACH: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_on_a_cluster() {
    let mut trial = Trial::start(2, 2, 1).await;
    lanes_hold(&mut trial).await;
    at_most_once_holds(&mut trial).await;
    a_circuit_opens_and_closes(&trial).await;
    a_change_applies_to_what_waits(&trial).await;
    all_run(&mut trial);
}

/// Kills a dispatcher and starts it again, the other one next time.
fn kill(trial: &mut Trial, round: usize) {
    let services = &mut trial.cluster.dispatchers;
    let index = round % services.len();
    tokio::task::block_in_place(|| services[index].kill().and_then(|()| services[index].restart()))
        .expect("killed and started again");
}

/// The requests of deliveries that the receiver has seen, by the id of their event.
async fn arrivals_by_event(client: &Client, receiver: &Receiver, events: &[String]) -> HashMap<String, Vec<Arrival>> {
    let mut by_delivery = receiver.by_delivery();
    let mut by_event = HashMap::new();
    for event in events {
        let deliveries = client.get(&format!("/v1/events/{event}/deliveries")).await.expect("a list");
        let id = deliveries["data"][0]["id"].as_str().expect("a delivery");
        by_event.insert(event.clone(), by_delivery.remove(id).unwrap_or_default());
    }
    by_event
}

/// Posts a batch; the ids of its events, in order.
async fn batch(client: &Client, events: &[Value]) -> Vec<String> {
    let answer = client.post("/v1/events/batch", &json!({"events": events})).await.expect("accepted");
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["id"].as_str().expect("an id").to_owned()).collect()
}

async fn lanes_hold(trial: &mut Trial) {
    let receiver = receiver().await;
    receiver.set_faults(Faults::some(0.3, Failure::status(500)).with_latency(Duration::from_millis(3)));
    let mut further = patient_retry();
    further["event_types"] = json!(["lane.**"]);
    further["ordering"] = json!("key");
    further["ordering_key_from"] = json!("/data/lane");
    further["circuit"] = json!({"enabled": false});
    let destination = trial.destination(&receiver, "/lanes", further).await;
    let mut lanes: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for round in 0..OF_EACH {
        // Two services take turns; each batch has one event of every lane.
        let client = &trial.clients[round % trial.clients.len()];
        let events: Vec<Value> =
            (0..LANES).map(|lane| json!({"type": "lane.moved", "data": {"lane": lane, "number": round}})).collect();
        for (lane, id) in batch(client, &events).await.into_iter().enumerate() {
            lanes.entry(lane).or_default().push(id);
        }
        if round % 3 == 2 {
            kill(trial, round);
        }
    }
    settled(trial.client(), &[destination], LANES * OF_EACH).await;
    let mut repeats = 0;
    for (lane, events) in &lanes {
        let arrivals = arrivals_by_event(trial.client(), &receiver, events).await;
        let mut last: Option<Duration> = None;
        for (number, event) in events.iter().enumerate() {
            let arrivals = &arrivals[event];
            assert!(
                arrivals.iter().any(|arrival| arrival.status == Some(200)),
                "event {number} of lane {lane} is missing"
            );
            repeats += arrivals.iter().filter(|arrival| arrival.status == Some(200)).count() - 1;
            let first = arrivals.iter().map(|arrival| arrival.since_start).min().expect("a request");
            assert!(
                last.is_none_or(|last| last < first),
                "event {number} of lane {lane} began at {first:?}, the one before was last sent at {last:?}"
            );
            last = arrivals.iter().map(|arrival| arrival.since_start).max();
        }
    }
    println!("lanes: {} deliveries in {LANES} lanes, {repeats} duplicates, none overtook", LANES * OF_EACH);
}

async fn at_most_once_holds(trial: &mut Trial) {
    let receiver = receiver().await;
    receiver.set_faults(Faults::some(0.3, Failure::status(500)).with_latency(Duration::from_millis(200)));
    let further = json!({
        "event_types": ["once.**"], "guarantee": "at_most_once", "timeout_ms": 1000, "max_in_flight": 10,
        "circuit": {"enabled": false},
    });
    let destination = trial.destination(&receiver, "/once", further).await;
    let mut posted = 0;
    for round in 0..3 {
        let events: Vec<Value> =
            (0..60).map(|number| json!({"type": "once.only", "data": {"number": number}})).collect();
        // In the middle of it. Counted from before: they may be under way before their answer is here.
        let some = receiver.stats().requests + 20;
        posted += batch(trial.client(), &events).await.len();
        receiver.wait_until(LONG, |stats| stats.requests >= some).await.expect("requests come");
        kill(trial, round);
    }
    let ended = eventually("every delivery has ended", LONG, || async {
        let mut ended = BTreeMap::new();
        for status in ["pending", "retrying", "delivered", "dead"] {
            let selection = json!({"destination_id": destination, "statuses": ["delivered", "dead"], "dry_run": true});
            let counted = trial.client().post("/v1/replays", &selection).await.map_err(|error| error.to_string())?;
            let path = format!("/v1/deliveries?destination_id={destination}&status={status}&limit=250");
            let list = trial.client().get(&path).await.map_err(|error| error.to_string())?;
            ended.insert(status, list["data"].as_array().map_or(0, Vec::len));
            ended.insert("all", usize::try_from(counted["matched"].as_u64().unwrap_or(0)).unwrap_or(0));
        }
        if ended["all"] == posted && ended["pending"] + ended["retrying"] == 0 {
            Ok(ended)
        } else {
            Err(format!("{ended:?}"))
        }
    })
    .await;
    let twice: Vec<_> = receiver.by_delivery().into_iter().filter(|(_, arrivals)| arrivals.len() > 1).collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");
    let dead =
        trial.client().get(&format!("/v1/dead-letters?destination_id={destination}&limit=250")).await.expect("a list");
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for letter in dead["data"].as_array().expect("a list") {
        *reasons.entry(letter["reason"].as_str().expect("a reason").to_owned()).or_default() += 1;
    }
    assert!(reasons.keys().all(|reason| ["failed_once", "unknown_outcome"].contains(&reason.as_str())), "{reasons:?}");
    println!("at most once: {posted} posted, {} requests, {ended:?}, dead: {reasons:?}", receiver.stats().requests);
}

async fn a_circuit_opens_and_closes(trial: &Trial) {
    let receiver = receiver().await;
    receiver.set_faults(Faults::always(Failure::status(500)));
    let mut further = patient_retry();
    further["event_types"] = json!(["circuit.**"]);
    further["retry"]["max_attempts"] = json!(1000);
    further["circuit"] = json!({"failures": 5, "open_ms": 1000, "max_open_ms": 2000, "probes": 2});
    let destination = trial.destination(&receiver, "/circuit", further).await;
    let events: Vec<Value> =
        (0..100).map(|number| json!({"type": "circuit.tried", "data": {"number": number}})).collect();
    let posted = batch(trial.client(), &events).await.len();
    let path = format!("/v1/destinations/{destination}");
    let circuit = async || trial.client().get(&path).await.map(|shown| shown["circuit_state"].clone());
    let opened = eventually("the circuit opens", LONG, || async {
        match circuit().await {
            Ok(state) if state["state"] == "open" => Ok(state),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(
        opened["trips"].as_u64() >= Some(1) && opened["reason"].is_string() && opened["since"].is_string(),
        "{opened}"
    );
    receiver.set_faults(Faults::none());
    settled(trial.client(), std::slice::from_ref(&destination), posted).await;
    let closed = eventually("the circuit closes", LONG, || async {
        match circuit().await {
            Ok(state) if state["state"] == "closed" => Ok(state),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    println!("circuit: {} requests for {posted} events, {} trips", receiver.stats().requests, closed["trips"]);
}

async fn a_change_applies_to_what_waits(trial: &Trial) {
    let (old, new) = (receiver().await, receiver().await);
    let destination = trial.destination(&old, "/change", json!({"event_types": ["change.**"]})).await;
    let path = format!("/v1/destinations/{destination}");
    trial.client().post(&format!("{path}/pause"), &json!({})).await.expect("paused");
    let events: Vec<Value> =
        (0..200).map(|number| json!({"type": "change.made", "data": {"number": number}})).collect();
    let posted = batch(trial.client(), &events).await.len();
    let changed = trial.client().patch(&path, &json!({"url": new.url("/changed")})).await.expect("changed");
    new.set_secret_at(
        "/changed",
        trial.client().get(&format!("{path}/secret")).await.expect("a secret")["secret"].as_str().expect("text"),
    )
    .expect("well-formed");
    assert_eq!(changed["state"], "paused");
    trial.client().post(&format!("{path}/resume"), &json!({})).await.expect("resumed");
    settled(trial.client(), &[destination], posted).await;
    assert_eq!((old.stats().requests, new.stats().accepted), (0, posted as u64), "the old URL got requests");
}
