//! The receiver as a client sees it, over raw connections, so that what it does on the wire is what is looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use signalpost_receiver::{Failure, Faults, Receiver, ReceiverSettings, Verdict};
use signalpost_signing::Secret;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const LONG: Duration = Duration::from_secs(20);

async fn start(settings: ReceiverSettings) -> Receiver {
    Receiver::start(settings).await.unwrap()
}

async fn faulty(faults: Faults) -> Receiver {
    start(ReceiverSettings { faults, ..ReceiverSettings::default() }).await
}

fn request(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Sends one request and reads until the connection ends.
async fn exchange(receiver: &Receiver, path: &str, headers: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(receiver.addr()).await?;
    stream.write_all(request(path, &format!("connection: close\r\n{headers}"), body).as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.expect("the receiver ends the connection")?;
    Ok(String::from_utf8(answer).unwrap())
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_default().parse().unwrap()
}

fn now() -> i64 {
    use signalpost_core::Clock as _;
    signalpost_runtime::SystemClock::new().now().as_secs()
}

fn signed(id: &str, body: &str, secret: &str) -> String {
    let at = now();
    let signature = Secret::parse(secret).unwrap().sign(id, at, body.as_bytes());
    format!("webhook-id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}\r\n")
}

fn delivery(id: &str, attempt: u32) -> String {
    format!("webhook-id: evt_{id}\r\nsignalpost-delivery-id: dlv_{id}\r\nsignalpost-attempt: {attempt}\r\n")
}

#[tokio::test]
async fn tells_right_signatures_from_wrong_ones() {
    let receiver = start(ReceiverSettings {
        secret: Some(SECRET.to_owned()),
        reject_invalid: true,
        ..ReceiverSettings::default()
    })
    .await;
    let good = signed("evt_1", "{}", SECRET);
    assert_eq!(status(&exchange(&receiver, "/hook?x=1", &good, "{}").await.unwrap()), 200);
    assert_eq!(status(&exchange(&receiver, "/hook", &good, "{ }").await.unwrap()), 401);
    assert_eq!(status(&exchange(&receiver, "/hook", "webhook-id: evt_1\r\n", "{}").await.unwrap()), 401);
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    receiver.set_secret_at("/other", other).unwrap();
    assert_eq!(status(&exchange(&receiver, "/other", &signed("evt_2", "{}", other), "{}").await.unwrap()), 200);

    let received = receiver.received();
    let verdicts: Vec<_> = received.iter().map(|request| request.verdict.clone()).collect();
    assert_eq!(verdicts[0], Verdict::Valid);
    assert_eq!(verdicts[1], Verdict::Invalid("no signature fits".to_owned()));
    assert_eq!(verdicts[2], Verdict::Invalid("header webhook-timestamp is missing".to_owned()));
    assert_eq!(verdicts[3], Verdict::Valid);
    assert_eq!(
        (received[0].path.as_str(), &received[0].body[..], received[0].webhook_id()),
        ("/hook?x=1", &b"{}"[..], "evt_1")
    );
    let stats = receiver.stats();
    assert_eq!((stats.valid, stats.invalid, stats.events, stats.accepted), (2, 2, 2, 2));
}

#[tokio::test]
async fn counts_events_deliveries_and_duplicates() {
    let receiver = faulty(Faults::first(2, Failure::status(503)).with_retry_after(7)).await;
    for attempt in 1..=4 {
        let answer = exchange(&receiver, "/", &delivery("1", attempt), "x").await.unwrap();
        assert_eq!(status(&answer), if attempt <= 2 { 503 } else { 200 });
        assert_eq!(answer.contains("retry-after: 7\r\n"), attempt <= 2);
    }
    let stats = receiver.wait_for(4, LONG).await.unwrap();
    assert_eq!((stats.requests, stats.events, stats.deliveries), (4, 1, 1));
    assert_eq!((stats.accepted, stats.events_accepted, stats.duplicates, stats.duplicate_deliveries), (2, 1, 1, 1));
    assert_eq!((stats.overlaps, stats.repeats, stats.most_at_once), (0, 3, 1));
    assert_eq!(receiver.requests_by_event()["evt_1"], 4);
    assert_eq!(receiver.accepted_by_event()["evt_1"], 2);
    let arrivals = &receiver.by_delivery()["dlv_1"];
    let told: Vec<_> = arrivals.iter().map(|arrival| (arrival.attempt, arrival.status)).collect();
    assert_eq!(told, [(1, Some(503)), (2, Some(503)), (3, Some(200)), (4, Some(200))]);
    assert!(arrivals.is_sorted_by_key(|arrival| arrival.since_start));
    receiver.clear();
    assert_eq!(receiver.stats().requests, 0);
    assert!(receiver.wait_for(1, Duration::from_millis(1)).await.is_err());
}

#[tokio::test]
async fn the_same_seed_fails_the_same_requests() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let faults = Faults::some(0.5, Failure::status(500));
        let receiver = start(ReceiverSettings { faults, seed, ..ReceiverSettings::default() }).await;
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(status(&exchange(&receiver, "/", "", "").await.unwrap()));
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert!(runs[0].contains(&200) && runs[0].contains(&500));
}

#[tokio::test]
async fn resets_the_connection() {
    let receiver = faulty(Faults::always(Failure::Reset)).await;
    let error = exchange(&receiver, "/", &delivery("1", 1), "x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    receiver.wait_for(1, LONG).await.unwrap();
    assert_eq!(receiver.received()[0].status, None);
}

#[tokio::test]
async fn hangs_until_the_client_goes_and_sees_overlaps() {
    let receiver = faulty(Faults::always(Failure::Hang)).await;
    let mut stream = TcpStream::connect(receiver.addr()).await.unwrap();
    stream.write_all(request("/", &delivery("1", 1), "x").as_bytes()).await.unwrap();
    receiver.wait_until(LONG, |stats| stats.requests == 1).await.unwrap();
    assert_eq!(receiver.stats().answered, 0);
    receiver.set_faults_at("/well", Some(Faults::none()));
    let before = receiver.stats();
    exchange(&receiver, "/well", &delivery("1", 1), "x").await.unwrap();
    assert_eq!(receiver.stats().overlaps, before.overlaps + 1);
    assert_eq!(receiver.overlapping(), ["dlv_1"]);
    assert!(timeout(Duration::from_millis(50), stream.read_u8()).await.is_err(), "it does not answer");
    let answered = receiver.stats().answered;
    drop(stream);
    receiver.wait_for(answered + 1, LONG).await.unwrap();
    assert_eq!(receiver.by_delivery()["dlv_1"][0].status, None);
}

#[tokio::test]
async fn drips_byte_by_byte() {
    let receiver = faulty(Faults::always(Failure::Drip { status: 200, bytes: 5, pause_ms: 30 })).await;
    let began = Instant::now();
    let answer = exchange(&receiver, "/", "", "").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!(status(&answer), 200);
    assert_eq!(answer.matches("1\r\n.\r\n").count(), 5, "five chunks of one byte: {answer}");
}

#[tokio::test]
async fn answers_with_big_bodies_redirects_and_slowly() {
    let receiver = faulty(Faults::always(Failure::BigBody { status: 200, bytes: 1_000_000 })).await;
    let answer = exchange(&receiver, "/", "", "").await.unwrap();
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 1_000_000);

    receiver.set_faults(Faults::always(Failure::Redirect("http://127.0.0.1:1/".to_owned())));
    let answer = exchange(&receiver, "/", "", "").await.unwrap();
    assert_eq!(status(&answer), 302);
    assert!(answer.contains("location: http://127.0.0.1:1/\r\n"));

    receiver.set_faults(Faults::none().with_latency(Duration::from_millis(80)));
    let began = Instant::now();
    assert_eq!(status(&exchange(&receiver, "/", "", "").await.unwrap()), 200);
    assert!(began.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn keeps_no_more_than_it_may_and_tells_its_observer() {
    let seen = Arc::new(Mutex::new(0));
    let observer = {
        let seen = Arc::clone(&seen);
        Arc::new(move |_: &_| *seen.lock().unwrap() += 1)
    };
    let receiver = start(ReceiverSettings { keep: 3, observer: Some(observer), ..ReceiverSettings::default() }).await;
    for number in 0..5 {
        exchange(&receiver, "/", "", &number.to_string()).await.unwrap();
    }
    let bodies: Vec<_> = receiver.received().iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies, ["2", "3", "4"]);
    assert_eq!(receiver.stats().requests, 5);
    assert_eq!(*seen.lock().unwrap(), 5);
}

#[tokio::test]
async fn control_paths_change_faults_and_show_totals() {
    let receiver = start(ReceiverSettings { control: true, ..ReceiverSettings::default() }).await;
    let change = r#"{"rate":1,"failure":{"status":418}}"#;
    let put = request("/_receiver/faults", "connection: close\r\n", change).replacen("POST", "PUT", 1);
    let mut stream = TcpStream::connect(receiver.addr()).await.unwrap();
    stream.write_all(put.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(status(&exchange(&receiver, "/", "", "").await.unwrap()), 418);
    assert_eq!(status(&exchange(&receiver, "/_receiver/stats", "", "").await.unwrap()), 405);
    assert_eq!(receiver.stats().requests, 1, "control requests are no webhooks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_twenty_thousand_requests() {
    let receiver = start(ReceiverSettings { secret: Some(SECRET.to_owned()), ..ReceiverSettings::default() }).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..20 {
        let mut stream = TcpStream::connect(receiver.addr()).await.unwrap();
        clients.spawn(async move {
            let mut answer = vec![0; 4096];
            for number in 0..1_000 {
                let headers = signed(&format!("evt_{client}_{number}"), "{}", SECRET);
                stream.write_all(request("/", &headers, "{}").as_bytes()).await.unwrap();
                let mut read = 0;
                while !answer[..read].ends_with(b"ok\n") {
                    read += stream.read(&mut answer[read..]).await.unwrap();
                }
            }
        });
    }
    let stats = receiver.wait_for_events(20_000, Duration::from_secs(60)).await.unwrap();
    assert_eq!((stats.valid, stats.duplicates, stats.repeats), (20_000, 0, 0));
    assert!(receiver.accepted_by_event().values().all(|&count| count == 1));
    assert_eq!(receiver.received().len(), 1_000, "whole requests are bounded");
    clients.join_all().await;
    let addr = receiver.addr();
    receiver.stop().await;
    let again = start(ReceiverSettings { listen: addr, ..ReceiverSettings::default() }).await;
    assert_eq!(again.addr(), addr);
}
