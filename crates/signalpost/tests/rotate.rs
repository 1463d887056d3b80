//! Keys of secrets at rest, as an operator meets them: made, replaced, lost, and of a version before there were any.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};
use signalpost_core::{Destination, DestinationId, Kept, Secret, TenantId, Timestamp};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_store::{Health as _, ManageStore as _};
use signalpost_store_sqlite::{SqliteStore, inspect};
use signalpost_testkit::{
    eventually,
    receiver::{Receiver, ReceiverSettings},
    services::process::Spec,
};
use support::{BINARY, Dev, LONG, run, stderr, stdout};

const SECRET: &str = "whsec_cGxhbnRlZC1pbi1hLWRhdGFiYXNlLW9mLWJlZm9yZQ==";
const HEADER: &str = "planted-value-of-a-header-of-before";

fn rotate(data_dir: &Path) -> Output {
    run(&["rotate-keys", "--data-dir", data_dir.to_str().unwrap()], &[], b"")
}

/// The keys in keys.toml, newest first.
fn keys(data_dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(data_dir.join("keys.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("encryption_keys")).expect("keys");
    line.split('"').nth(1).unwrap().split(',').map(str::to_owned).collect()
}

fn id(key: &str) -> &str {
    key.split(':').next().unwrap()
}

fn set_keys(data_dir: &Path, keys: &[&str]) {
    let path = data_dir.join("keys.toml");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("encryption_keys") {
        true => format!("encryption_keys = \"{}\"\n", keys.join(",")),
        false => format!("{line}\n"),
    });
    fs::write(&path, lines.collect::<String>()).unwrap();
}

/// Whether any file of the database holds these bytes.
fn database_holds(data_dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap()).any(|entry| {
        entry.file_name().to_string_lossy().starts_with("signalpost.db")
            && fs::read(entry.path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

async fn signed_delivery(dev: &Dev, receiver: &Receiver) {
    let before = receiver.stats();
    dev.client().post("/v1/events", &json!({"type": "a.b", "data": 1})).await.unwrap();
    let after = receiver.wait_until(LONG, |stats| stats.accepted > before.accepted).await.unwrap();
    assert_eq!((after.invalid, after.valid > before.valid), (0, true));
}

async fn secret(dev: &Dev, destination: &Value) -> Value {
    dev.client().get(&format!("/v1/destinations/{}/secret", destination["id"].as_str().unwrap())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_gets_a_new_key_and_needs_the_old_one_no_more() {
    let receiver =
        Receiver::start(ReceiverSettings { reject_invalid: true, ..ReceiverSettings::default() }).await.unwrap();
    let mut dev = Dev::standalone();
    let destination = dev.client().create_destination(&receiver.url("/"), json!({})).await.unwrap();
    receiver.set_secret(destination["secret"].as_str()).unwrap();
    signed_delivery(&dev, &receiver).await;
    let shown = secret(&dev, &destination).await;
    let data_dir = dev.data_dir();
    let first = keys(&data_dir);
    assert!(first.len() == 1 && first[0].starts_with("k1-"), "{first:?}");

    let in_use = rotate(&data_dir);
    assert_eq!(in_use.status.code(), Some(1));
    assert!(stderr(&in_use).contains("in use by another process"), "{}", stderr(&in_use));
    assert_eq!(keys(&data_dir), first);

    assert!(dev.process.stop(LONG).unwrap().success());
    assert!(database_holds(&data_dir, id(&first[0]).as_bytes()), "what is encrypted begins with the id of its key");
    let rotated = rotate(&data_dir);
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));
    let both = keys(&data_dir);
    assert_eq!((both.len(), &both[1]), (2, &first[0]));
    let (new, old) = (id(&both[0]), id(&both[1]));
    for line in [
        format!("made the key {new}, in {}", data_dir.join("keys.toml").display()),
        "to encrypt: 1".to_owned(),
        format!("encrypted with {new}: 1"),
        format!("nothing is encrypted any more with {old}: take it out of keys.toml in 24 h"),
    ] {
        assert!(stdout(&rotated).contains(&line), "{line}: {}", stdout(&rotated));
    }
    assert!(!database_holds(&data_dir, old.as_bytes()), "nothing of before is left");

    set_keys(&data_dir, &[&both[0]]);
    dev.restart();
    assert_eq!(secret(&dev, &destination).await, shown);
    signed_delivery(&dev, &receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_killed_is_finished_with_its_key() {
    let mut dev = Dev::standalone();
    let (client, data_dir) = (dev.client(), dev.data_dir());
    let mut made = Vec::new();
    for number in 0..300 {
        made.push(client.create_destination(&format!("http://127.0.0.1:9999/{number}"), json!({})).await.unwrap());
    }
    assert!(dev.process.stop(LONG).unwrap().success());
    let spec =
        Spec::new("rotate", BINARY, dev.folder.path()).args(&["rotate-keys", "--data-dir", data_dir.to_str().unwrap()]);
    let mut killed = spec.start().unwrap();
    killed.wait_for_log("to encrypt: 300", 1, LONG).unwrap();
    killed.kill().unwrap();
    let began = keys(&data_dir);
    assert_eq!(began.len(), 2, "a new key, and the one of before");

    let rotated = rotate(&data_dir);
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));
    let kept = inspect(data_dir.join("signalpost.db")).unwrap().unwrap();
    let newest = keys(&data_dir)[0].clone();
    assert_eq!(kept.sealed.into_iter().collect::<Vec<_>>(), [(id(&newest).to_owned(), 300)]);
    // Where all was done when it was killed, the second run was a rotation of its own.
    let again = stdout(&rotated).contains("made the key");
    assert_eq!(keys(&data_dir).len(), if again { 3 } else { 2 });
    dev.restart();
    for destination in [&made[0], &made[299]] {
        assert_eq!(secret(&dev, destination).await["secret"], destination["secret"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_set_before_the_others_encrypts_everything_at_the_next_start() {
    let mut dev = Dev::standalone();
    let data_dir = dev.data_dir();
    let destination = dev.client().create_destination("http://127.0.0.1:9999/", json!({})).await.unwrap();
    assert!(dev.process.stop(LONG).unwrap().success());
    let old = keys(&data_dir)[0].clone();
    set_keys(&data_dir, &["mine:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", &old]);
    let doctor = run(&["doctor", "--data-dir", data_dir.to_str().unwrap(), "--listen", "127.0.0.1:0"], &[], b"");
    assert_eq!(doctor.status.code(), Some(0), "{}", stdout(&doctor));
    assert!(stdout(&doctor).contains("1 are encrypted with an older key"), "{}", stdout(&doctor));
    dev.restart();
    assert_eq!(secret(&dev, &destination).await["secret"], destination["secret"]);
    let kept = inspect(data_dir.join("signalpost.db")).unwrap().unwrap();
    assert_eq!(kept.sealed.into_iter().collect::<Vec<_>>(), [("mine".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_stops_the_start_and_is_named() {
    let mut dev = Dev::standalone();
    let data_dir = dev.data_dir();
    dev.client().create_destination("http://127.0.0.1:9999/", json!({})).await.unwrap();
    assert!(dev.process.stop(LONG).unwrap().success());
    let kept = fs::read(data_dir.join("keys.toml")).unwrap();
    let lost = keys(&data_dir)[0].clone();
    let text = data_dir.to_str().unwrap();
    // Without the file none is made, as its key would not fit; nor is that of somebody else taken.
    fs::remove_file(data_dir.join("keys.toml")).unwrap();
    let missing =
        format!("keys.toml is missing, and secrets in {text}/signalpost.db are encrypted with `{}`", id(&lost));
    let not_set = format!("encrypted with the key `{}`, which is not set: add it to", id(&lost));
    let another = [
        ("SIGNALPOST_ENCRYPTION_KEYS", "k9:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        ("SIGNALPOST_ADMIN_KEY", "0123456789abcdef"),
    ];
    for (env, told) in [(&another[1..], &missing), (&another, &not_set)] {
        for command in ["standalone", "rotate-keys", "doctor"] {
            let mut args = vec![command, "--data-dir", text];
            args.extend((command != "rotate-keys").then_some(["--listen", "localhost:0"]).into_iter().flatten());
            let output = run(&args, env, b"");
            if command == "doctor" {
                assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
                assert!(
                    stdout(&output).contains("FAIL  encryption keys") && stdout(&output).contains(told),
                    "{}",
                    stdout(&output)
                );
                continue;
            }
            assert_eq!(output.status.code(), Some(2), "{command}: {}", stderr(&output));
            assert!(stderr(&output).contains(told), "{command}: {}", stderr(&output));
            assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        }
    }
    assert!(!data_dir.join("keys.toml").exists(), "a file of keys that open nothing");
    fs::write(data_dir.join("keys.toml"), kept).unwrap();
    dev.restart();
    let listed = dev.client().get("/v1/destinations").await.unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "put back, all is as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_keys_are_set_no_file_of_keys_is_made() {
    let admin = "0123456789abcdef";
    let sealing = "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let dev = Dev::standalone_with(&[("SIGNALPOST_ADMIN_KEY", admin), ("SIGNALPOST_ENCRYPTION_KEYS", sealing)]);
    assert!(!dev.data_dir().join("keys.toml").exists());
    let client = signalpost_testkit::Client::new(&dev.url(), admin);
    client.create_destination("http://127.0.0.1:9999/", json!({})).await.unwrap();

    // With one of them it holds what is used of it.
    let dev = Dev::standalone_with(&[("SIGNALPOST_ENCRYPTION_KEYS", sealing)]);
    assert_eq!(keys(&dev.data_dir()), [""]);
    dev.client().create_destination("http://127.0.0.1:9999/", json!({})).await.unwrap();
}

#[test]
fn the_data_directory_of_the_command_line_is_what_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let cluster =
        [("SIGNALPOST_DATABASE_URL", "postgres://127.0.0.1:1/none"), ("SIGNALPOST_KAFKA_BROKERS", "127.0.0.1:1")];
    for command in ["migrate", "rotate-keys"] {
        let output = run(&[command, "--data-dir", path.to_str().unwrap()], &cluster, b"");
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
        assert!(stdout(&output).contains("signalpost.db is "), "{command}: {}", stdout(&output));
    }
}

#[test]
fn keys_that_are_none_and_directories_that_are_none_are_bad_settings() {
    let keys = [("SIGNALPOST_ENCRYPTION_KEYS", "k1:c2hvcnQtcGxhbnRlZA==")];
    let output = run(&["standalone", "--listen", "127.0.0.1:0"], &keys, b"");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("openssl rand -base64 32"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("c2hvcnQt"), "{}", stderr(&output));
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let output = rotate(&nowhere);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("there is no database in"), "{}", stderr(&output));
    assert!(!nowhere.exists());
}

/// As the version before left it: not encrypted, and no key but the operator's.
async fn of_before(data_dir: &Path) -> DestinationId {
    let output = run(&["migrate", "--data-dir", data_dir.to_str().unwrap()], &[], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let store = SqliteStore::open(data_dir, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).unwrap();
    let now: Timestamp = store.check().await.unwrap();
    let spec = json!({"name": "old", "url": "http://127.0.0.1:9999/", "event_types": ["*"], "header_names": ["X-Old"]});
    let headers = [("X-Old".to_owned(), Secret::new(HEADER))].into();
    let destination = Destination::new(
        DestinationId::new(now, &SystemEntropy),
        TenantId::DEFAULT,
        serde_json::from_value(spec).unwrap(),
        Kept::Plain { secret: Secret::new(SECRET), headers },
        now,
    );
    store.create_destination(&destination).await.unwrap();
    fs::write(data_dir.join("keys.toml"), "admin_key = \"op_of-the-version-before\"\n").unwrap();
    destination.id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_before_left_is_encrypted_at_the_first_start() {
    let mut dev = Dev::standalone();
    assert!(dev.process.stop(LONG).unwrap().success());
    let data_dir = dev.data_dir();
    fs::remove_dir_all(&data_dir).unwrap();
    let id = of_before(&data_dir).await;
    let secret_bytes = SECRET.trim_start_matches("whsec_").as_bytes();
    assert!(database_holds(&data_dir, secret_bytes) && database_holds(&data_dir, HEADER.as_bytes()));
    let doctor = ["doctor", "--data-dir", data_dir.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    assert!(stdout(&run(&doctor, &[], b"")).contains("none yet; the next start makes one"));

    dev.restart();
    assert_eq!(dev.key(), "op_of-the-version-before");
    assert_eq!(keys(&data_dir).len(), 1);
    let path = format!("/v1/destinations/{id}");
    assert_eq!(dev.client().get(&format!("{path}/secret")).await.unwrap()["secret"], SECRET);
    assert_eq!(dev.client().get(&path).await.unwrap()["headers"], json!({"X-Old": "***"}));
    eventually("nothing of it is left in the files", LONG, || async {
        let left = [secret_bytes, HEADER.as_bytes()].map(|bytes| database_holds(&data_dir, bytes));
        if left == [false, false] { Ok(()) } else { Err(left) }
    })
    .await;
    let doctor = run(&doctor, &[], b"");
    assert!(stdout(&doctor).contains("all are encrypted with k1-"), "{}", stdout(&doctor));
}

#[test]
fn no_command_shows_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let text = data_dir.to_str().unwrap();
    run(&["migrate", "--data-dir", text], &[], b"");
    let rotated = rotate(&data_dir);
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));
    let help = Command::new(BINARY).args(["rotate-keys", "--help"]).stdin(Stdio::null()).output().unwrap();
    let doctor = run(&["doctor", "--data-dir", text, "--listen", "127.0.0.1:0"], &[], b"");
    for key in keys(&data_dir) {
        let (_, key) = key.split_once(':').unwrap();
        for output in [&rotated, &help, &doctor] {
            assert!(!stdout(output).contains(key) && !stderr(output).contains(key));
        }
    }
}
