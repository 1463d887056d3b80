//! `signalpost send` against a real `dev`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use signalpost_testkit::receiver::{Failure, Faults, Receiver, ReceiverSettings};
use support::{BINARY, Dev, LONG, run, send, stderr, stdout};

async fn receiver_of(dev: &Dev) -> Receiver {
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    dev.client().create_destination(&receiver.url("/"), json!({})).await.unwrap();
    receiver
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_lines_are_told_by_number_and_the_rest_arrives() {
    let dev = Dev::start();
    let receiver = receiver_of(&dev).await;
    let input = b"{\"type\":\"a.b\",\"data\":{\"n\":1}}\n{\"type\":\n\n{\"type\":\"not a type\",\"data\":1}\n{\"type\":\"a.b\",\"data\":{\"n\":1.0}}\n";
    for batch in ["1", "100"] {
        receiver.clear();
        let output = send(&dev, &["--batch", batch], input);
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(told.contains("line 2: not JSON: "), "{told}");
        assert!(told.contains("line 4: /type "), "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(
            stdout(&output).starts_with("sent 3, accepted 2, duplicates 0, failed 2 (1 line is broken), in "),
            "{output:?}"
        );
        receiver.wait_for_events(2, LONG).await.unwrap();
        let bodies: Vec<_> = receiver.received().iter().map(|request| request.body.clone()).collect();
        assert!(bodies.iter().any(|body| body.ends_with(b"\"data\":{\"n\":1.0}}")), "as written: {bodies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_columns_become_data_and_a_second_run_creates_nothing() {
    let dev = Dev::start();
    let receiver = receiver_of(&dev).await;
    let payments = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/payments.csv");
    let args = [payments, "--type", "payment.created", "--uid-column", "payment_id"];
    let first = send(&dev, &args, b"");
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(stdout(&first).starts_with("sent 100, accepted 100, duplicates 0, failed 0, "), "{}", stdout(&first));
    let second = send(&dev, &args, b"");
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));
    assert!(stdout(&second).starts_with("sent 100, accepted 0, duplicates 100, failed 0, "), "{}", stdout(&second));
    let stats = receiver.wait_for_events(100, LONG).await.unwrap();
    assert_eq!((stats.duplicates, stats.overlaps), (0, 0));
    let event = dev.client().get("/v1/events/pay_0001?include=data").await.unwrap();
    assert_eq!(event["type"], "payment.created");
    assert!(event["data"]["amount"].is_string(), "as written: {event}");

    let events = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/events.ndjson");
    let output = send(&dev, &[events, "--max", "5", "--rate", "1000"], b"");
    assert!(stdout(&output).starts_with("sent 5, accepted 5, "), "{}", stdout(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_while_is_repeated_and_arrives_once() {
    // A Signalpost that is not there for a while: connections are refused, then it starts.
    let mut dev = Dev::start();
    let receiver = receiver_of(&dev).await;
    let (url, key) = (dev.url(), dev.key());
    assert!(dev.process.stop(LONG).unwrap().success());
    let sending = tokio::task::spawn_blocking(move || {
        let lines: String = (0..200).map(|n| format!("{{\"type\":\"a.b\",\"data\":{n}}}\n")).collect();
        run(&["send", "--batch", "10"], &[("SIGNALPOST_URL", &url), ("SIGNALPOST_API_KEY", &key)], lines.as_bytes())
    });
    dev.restart();
    let output = sending.await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let stats = receiver.wait_for_events(200, LONG).await.unwrap();
    assert_eq!((stats.events, stats.duplicates), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gives_up_in_time_and_tells_of_wrong_keys() {
    let dev = Dev::start();
    let wrong_key = [("SIGNALPOST_URL", dev.url()), ("SIGNALPOST_API_KEY", "not-the-key-of-anybody".to_owned())];
    let wrong_key: Vec<_> = wrong_key.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let output = run(&["send"], &wrong_key, b"{\"type\":\"a\",\"data\":1}\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the API key is not accepted"), "{}", stderr(&output));

    let busy = Receiver::start(ReceiverSettings {
        faults: Faults::always(Failure::status(503)).with_retry_after(1),
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    let args = ["send", "--url", &busy.url(""), "--key", "any-key-will-do-here", "--give-up-after", "5"];
    let output = run(&args, &[], b"{\"type\":\"a\",\"data\":1}\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("line 1: given up: answered 503"), "{}", stderr(&output));
    let requests = busy.received();
    assert!((2..=6).contains(&requests.len()), "Retry-After holds: {}", requests.len());
    let keys: Vec<_> = requests.iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    assert!(!keys[0].is_empty() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    for two in requests.windows(2) {
        let pause = two[1].at.since(two[0].at);
        assert!(pause >= Duration::from_secs(1), "{pause:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_hmac_what_was_taken_before_is_refused_by_line_and_uids_are_duplicates() {
    let dev = Dev::start();
    let tenant = json!({
        "name": "Signing", "slug": "signing",
        "ingest_signature": {"scheme": "hmac", "header": "X-Signature", "secret": "producers"},
    });
    let tenant = dev.client().post("/v1/tenants", &tenant).await.unwrap();
    let (url, key) = (dev.url(), tenant["key"].as_str().unwrap().to_owned());
    let send = |args: &[&str], secret: &str, input: &str| {
        let scheme = ["send", "--sign-scheme", "hmac,header=x-signature", "--key", &key, "--concurrency", "1"];
        run(
            &[&scheme[..], args].concat(),
            &[("SIGNALPOST_URL", &url), ("SIGNALPOST_SIGN_SECRET", secret)],
            input.as_bytes(),
        )
    };
    let lines =
        |numbers: &[u32]| numbers.iter().map(|n| format!("{{\"type\":\"a\",\"data\":{n}}}\n")).collect::<String>();
    let first = send(&["--batch", "1"], "producers", &lines(&[2]));
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let second = send(&["--batch", "1"], "producers", &lines(&[1, 2, 3]));
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(stderr(&second), "line 2: What is signed here was taken before.\n");
    assert!(stdout(&second).starts_with("sent 3, accepted 2, duplicates 0, failed 1, "), "{}", stdout(&second));

    let with_uids = "{\"type\":\"a\",\"uid\":\"1\",\"data\":1}\n{\"type\":\"a\",\"uid\":\"2\",\"data\":2}\n";
    for batch in ["1", "100"] {
        let output = send(&["--batch", batch], "producers", with_uids);
        let (accepted, duplicates) = if batch == "1" { (2, 0) } else { (0, 2) };
        assert_eq!(output.status.code(), Some(0), "{batch}: {}", stderr(&output));
        assert!(
            stdout(&output).starts_with(&format!("sent 2, accepted {accepted}, duplicates {duplicates}, ")),
            "{}",
            stdout(&output)
        );
        let again = send(&["--batch", batch], "producers", with_uids);
        assert!(stdout(&again).starts_with("sent 2, accepted 0, duplicates 2, failed 0, "), "{}", stdout(&again));
    }
    let wrong = send(&[], "somebody-else", &lines(&[4]));
    assert!(stderr(&wrong).contains("the signature is not accepted (--sign-secret"), "{}", stderr(&wrong));
}

#[test]
fn a_signal_ends_the_wait_for_standard_input() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = Command::new(BINARY)
            .args(["send", "--key", "any-key-will-do-here", "--url", "http://127.0.0.1:1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Held open: nothing ever comes.
        let stdin = child.stdin.take();
        // A broken line is told once it is read: then signals are handled.
        stdin.as_ref().unwrap().write_all(b"broken\n").unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        assert_eq!(told.next().unwrap().unwrap(), "line 1: not a JSON object");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let said: Vec<_> = told.map(Result::unwrap).collect();
        assert!(said[0].starts_with("signalpost: stopping; "), "{said:?}");
        assert_eq!(said[1..], ["signalpost: stopped before the end"]);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        drop(stdin);
    }
}

#[test]
fn wrong_arguments_are_settings() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("a.csv");
    std::fs::write(&csv, "a,b\n1,2\n").unwrap();
    let csv = csv.to_str().unwrap();
    for args in [
        vec!["send", "--key", "k", csv],
        vec!["send", "--key", "k", "--type", "t", "no-such-file.csv"],
        vec!["send", "--key", "k", "what.is-it"],
        vec!["send", csv, "--type", "t"],
        vec!["send", "--key", "k", "--url", "ftp://x"],
        vec!["send", "--batch", "0"],
    ] {
        let output = run(&args, &[], b"");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
}
