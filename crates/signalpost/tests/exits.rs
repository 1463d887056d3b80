//! How the binary ends: exit codes, one clear line, two steps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use nix::sys::signal::Signal;
use serde_json::json;
use signalpost_testkit::receiver::{Failure, Faults, Receiver, ReceiverSettings};
use support::{Dev, LONG, run, stderr, stdout};

#[test]
fn bad_settings_are_exit_code_2_and_one_line() {
    for (env, told) in [
        (("SIGNALPOST_LISTEN", "nowhere"), "SIGNALPOST_LISTEN (`nowhere`)"),
        (("SIGNALPOST_LISTN", "127.0.0.1:1"), "did you mean SIGNALPOST_LISTEN?"),
        (("SIGNALPOST_ADMIN_KEY", "short"), "SIGNALPOST_ADMIN_KEY"),
        (("SIGNALPOST_LOG", "signalpost=loud"), "signalpost=loud"),
        (("SIGNALPOST_LOG", "inffo"), "SIGNALPOST_LOG (`inffo`) has `inffo`, which is no level"),
        (("SIGNALPOST_LISTEN", "192.0.2.1:8080"), "192.0.2.1:8080 is no address of this machine"),
    ] {
        let output = run(&["dev"], &[env], b"");
        assert_eq!(output.status.code(), Some(2), "{env:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signalpost.toml");
    std::fs::write(&file, "[destination_defaults]\ntimeout_ms = 5\nmax_in_flight = 20000\n").unwrap();
    let output = run(&["dev"], &[("SIGNALPOST_CONFIG", file.to_str().unwrap())], b"");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(
        stderr(&output),
        "signalpost: destination_defaults.timeout_ms: must be a whole number from 1000 to 60000; \
         destination_defaults.max_in_flight: must be a whole number from 1 to 10000\n"
    );
    assert_eq!(run(&["dev", "--nonsense"], &[], b"").status.code(), Some(2));
    let version = run(&["--version"], &[], b"");
    assert_eq!(
        (version.status.code(), stdout(&version)),
        (Some(0), format!("signalpost {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn what_is_in_use_is_told_in_one_line() {
    let dev = Dev::start();
    let (listen, data_dir) = (format!("127.0.0.1:{}", dev.port), dev.data_dir());
    let in_use = |setting: &str| {
        format!("signalpost: {listen} is in use by another process; stop it, or choose another port with {setting}\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let unmade = folder.path().join("unmade");
    let output = run(&["dev", "--listen", &listen, "--data-dir", unmade.to_str().unwrap()], &[], b"");
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), in_use("SIGNALPOST_LISTEN")));
    assert!(!unmade.exists(), "a folder with keys that nobody has");
    let output = run(&["receiver", "--listen", &listen], &[], b"");
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), in_use("--listen")));
    let output = run(&["standalone", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()], &[], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is in use by another process"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);

    let output = run(&["doctor", "--data-dir", data_dir.to_str().unwrap()], &[("SIGNALPOST_LISTEN", &listen)], b"");
    assert_eq!(output.status.code(), Some(0), "a running one is no fault: {}", stdout(&output));
    assert!(stdout(&output).contains("in use by a running Signalpost"), "{}", stdout(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains_and_the_second_stops_at_once() {
    let faults = Faults::none().with_latency(std::time::Duration::from_millis(700));
    let receiver = Receiver::start(ReceiverSettings { faults, ..ReceiverSettings::default() }).await.unwrap();
    let mut dev = Dev::start();
    dev.client().create_destination(&receiver.url("/"), json!({})).await.unwrap();
    let event = dev.client().post("/v1/events", &json!({"type": "a.b", "data": 1})).await.unwrap();
    receiver.wait_until(LONG, |stats| stats.requests == 1).await.unwrap();
    assert_eq!(dev.process.stop(LONG).unwrap().code(), Some(0));
    assert_eq!(receiver.stats().accepted, 1, "what was out was finished");
    dev.restart();
    let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
    assert_eq!(dev.client().get(&path).await.unwrap()["status"], "delivered", "and its outcome written");

    receiver.set_faults(Faults::always(Failure::Hang));
    dev.client().post("/v1/events", &json!({"type": "a.b", "data": 2})).await.unwrap();
    receiver.wait_until(LONG, |stats| stats.requests == 2).await.unwrap();
    dev.process.signal(Signal::SIGINT).unwrap();
    dev.process.wait_for_log("stopping; ", 2, LONG).unwrap();
    assert!(dev.process.is_running(), "it waits for the request that is out");
    assert_eq!(dev.process.stop(LONG).unwrap().code(), Some(1), "the second signal");
    assert_eq!(receiver.stats().accepted, 1);
}

#[test]
fn migrate_and_doctor_know_sqlite_and_say_how_to_get_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    for _ in 0..2 {
        let output = run(&["migrate", "--data-dir", data_dir], &[], b"");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).ends_with("signalpost.db is up to date\n"), "{}", stdout(&output));
    }
    let listen = ("SIGNALPOST_LISTEN", "127.0.0.1:0");
    let output = run(&["doctor", "--data-dir", data_dir], &[listen], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let output = run(&["doctor", "--data-dir", "/proc/none"], &[listen], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("FAIL  data directory"), "{}", stdout(&output));
    assert!(stdout(&output).contains("→ "), "it says what to do: {}", stdout(&output));
}

#[test]
fn doctor_fails_where_a_start_would() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let args = ["doctor", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let config = folder.path().join("signalpost.toml");
    std::fs::write(&config, "[destination_defaults]\ntimeout_ms = 5\n").unwrap();
    for (env, told) in [
        (("SIGNALPOST_EGRESS_CA_FILE", "/nowhere.pem"), "SIGNALPOST_EGRESS_CA_FILE (`/nowhere.pem`) cannot be read"),
        (("SIGNALPOST_CONFIG", config.to_str().unwrap()), "destination_defaults.timeout_ms: must be"),
        (("SIGNALPOST_LOG", "signalpost=loud"), "the log filter `signalpost=loud` is not valid"),
    ] {
        let output = run(&args, &[env], b"");
        assert_eq!(output.status.code(), Some(1), "{env:?}: {}", stdout(&output));
        assert!(stdout(&output).contains(told) && stdout(&output).contains("1 of "), "{}", stdout(&output));
    }
    let many = run(&args, &[("SIGNALPOST_MAX_CONNECTIONS", "1000000")], b"");
    assert_eq!(many.status.code(), Some(0), "{}", stdout(&many));

    std::fs::create_dir(&data_dir).unwrap();
    std::fs::write(data_dir.join("signalpost.db"), "This is no database, but a text of some length.\n".repeat(100))
        .unwrap();
    let output = run(&args, &[], b"");
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("FAIL  database") && stdout(&output).contains("1 of "), "{}", stdout(&output));
}

#[cfg(not(any(feature = "otlp", feature = "cluster")))]
#[test]
fn without_the_feature_an_export_of_traces_is_told_how_to_be_had() {
    let endpoint = ("SIGNALPOST_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let output = run(&["standalone", "--listen", "127.0.0.1:0"], &[endpoint], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("-p signalpost --features otlp"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[cfg(not(feature = "cluster"))]
#[test]
fn without_the_feature_a_cluster_is_told_how_to_be_had() {
    let url = ("SIGNALPOST_DATABASE_URL", "postgres://localhost/signalpost");
    let output = run(&["migrate"], &[url], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--features cluster"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
    let output = run(&["doctor"], &[url], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("--features cluster"), "{}", stdout(&output));
}

#[test]
fn health_tells_how_a_service_is() {
    let dev = Dev::start();
    let well = run(&["health", &format!("{}/health/ready", dev.url())], &[], b"");
    assert_eq!(well.status.code(), Some(0), "{}", stderr(&well));
    assert!(stdout(&well).contains("200"), "{}", stdout(&well));
    let missing = run(&["health", &format!("{}/nowhere", dev.url())], &[], b"");
    assert_eq!(missing.status.code(), Some(1), "{}", stdout(&missing));
    let away = run(&["health", "http://127.0.0.1:1/health/ready"], &[], b"");
    assert_eq!(away.status.code(), Some(1));
    assert_eq!(stderr(&away).lines().count(), 1, "{}", stderr(&away));
}
