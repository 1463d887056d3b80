//! Receivers of other systems go on as they are: each section of `docs/migrating.md` is taken at its word. A real request is made with its settings, and
//! its check, in Python, must take it, and refuse another body and another secret.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails in a helper fails the test")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use signalpost_core::{
    Clock, DeliveryId, Destination, DestinationId, DestinationSecrets, DestinationSpec, Entropy, Event, EventId,
    EventMeta, Kept, TenantId, secret::Secret,
};
use signalpost_receiver::{Received, Receiver, ReceiverSettings};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_sender::{EgressPolicy, Outgoing, Sender, SenderSettings};
use signalpost_vault::KeyRing;

/// What a body is made of that is written in more than one way.
const DATA: &str = r#"{"order": 42, "total":1.50,"items":[],"a": {"z":1e3, "ü":"\u00fc\/"}, "note":null}"#;

/// The first block of that language in that section of the document.
fn block(section: &str, language: &str) -> String {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/migrating.md");
    let document = std::fs::read_to_string(document).unwrap();
    let (_, text) = document.split_once(&format!("\n## {section}\n")).expect("the section");
    let text = text.split("\n## ").next().unwrap();
    let (_, text) = text.split_once(&format!("```{language}\n")).expect("the block");
    text.split("```").next().unwrap().to_owned()
}

/// The secret, and the request as it arrived.
async fn request_of(section: &str) -> (String, Arc<Received>) {
    let receiver = Receiver::start(ReceiverSettings::default()).await.unwrap();
    let mut settings: Value = serde_json::from_str(&block(section, "json")).unwrap();
    let made = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned();
    let secret = settings["secret"].as_str().map_or(made, str::to_owned);
    let mut secrets = DestinationSecrets::signing(Secret::new(&*secret));
    for (name, value) in settings["headers"].as_object().into_iter().flatten() {
        secrets.headers.insert(name.clone(), Secret::new(value.as_str().unwrap()));
    }
    settings["url"] = receiver.url("/hook").into();
    settings["event_types"] = json!(["*"]);
    let spec: DestinationSpec = serde_json::from_value(settings).unwrap();

    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy));
    let vault = Arc::new(KeyRing::parse(KeyRing::generate("test", &*entropy).reveal()).unwrap());
    let (at, tenant_id) = (clock.now(), TenantId::DEFAULT);
    let id = DestinationId::new(at, &*entropy);
    let destination = Destination::new(
        id,
        tenant_id,
        spec,
        Kept::Sealed(vault.seal_destination(&*entropy, tenant_id, id, &secrets)),
        at,
    );
    let event = Event {
        id: EventId::new(at, &*entropy),
        tenant_id,
        event_type: "order.created".into(),
        uid: None,
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(DATA.as_bytes()),
    };
    let egress = EgressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..EgressPolicy::public_only() };
    let sender = Sender::new(SenderSettings::new(egress, clock, Arc::clone(&entropy), vault)).unwrap();
    let delivery_id = DeliveryId::new(at, &*entropy);
    let exchange = sender
        .send(&Outgoing { destination: &destination, event: &event, delivery_id, attempt: 1, at, traceparent: None })
        .await;
    assert_eq!(exchange.status_code, Some(200), "{exchange:?}");
    receiver.wait_for(1, Duration::from_secs(5)).await.unwrap();
    (secret, receiver.received()[0].clone())
}

/// What the section's check says of each of these. None: there is no Python here. Where tests run for everyone (`CI` is set), there must be one.
fn verdicts(section: &str, cases: &[(&Received, &[u8], &str)]) -> Option<Vec<bool>> {
    let script = format!(
        "import base64, hashlib, hmac, json, sys, time\n{}\nfor case in json.load(sys.stdin):\n    \
         print(verify(case['headers'], base64.b64decode(case['body']), case['secret']))\n",
        block(section, "python")
    );
    let cases: Vec<_> = cases
        .iter()
        .map(|(request, body, secret)| {
            let headers =
                request.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
            let headers: serde_json::Map<String, Value> = headers.collect();
            json!({"headers": headers, "body": STANDARD.encode(body), "secret": secret})
        })
        .collect();
    let python = Command::new("python3").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = match python {
        Ok(python) => python,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("python3 is not there ({error}): the check of {section} is not run");
            return None;
        }
        Err(error) => panic!("python3 is needed: {error}"),
    };
    python.stdin.take().unwrap().write_all(&serde_json::to_vec(&cases).unwrap()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{section}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "True").collect())
}

async fn goes_on_as_it_is(section: &str) {
    let (secret, request) = request_of(section).await;
    assert_eq!(&request.body[..], DATA.as_bytes());
    let other_secret = "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
    let other_body = DATA.replace("42", "43");
    let cases = [
        (&*request, DATA.as_bytes(), secret.as_str()),
        (&*request, other_body.as_bytes(), secret.as_str()),
        (&*request, DATA.as_bytes(), other_secret),
    ];
    if let Some(verdicts) = verdicts(section, &cases) {
        let refuses = section != "Event Hub";
        assert_eq!(verdicts, [true, !refuses, !refuses], "{section}");
    }
}

macro_rules! systems {
    ($($test:ident $section:literal;)*) => {
        $(#[tokio::test]
        async fn $test() {
            goes_on_as_it_is($section).await;
        })*

        /// A section that is added is tested.
        #[test]
        fn every_system_of_the_document_is_here() {
            let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/migrating.md")).unwrap();
            let with_check = document.split("\n## ").skip(1).filter(|text| text.contains("```python"));
            let sections: Vec<_> = with_check.map(|text| text.lines().next().unwrap()).collect();
            assert_eq!(sections, [$($section),*]);
        }
    };
}

systems! {
    edp "EDP";
    event_pulse "EventPulse";
    bruce "Bruce";
    dispatch "Dispatch";
    event_hub "Event Hub";
    svix "Svix";
    convoy "Convoy";
    outpost "Hookdeck Outpost";
    github "GitHub";
}

/// The official library of Standard Webhooks, as Svix's does.
#[tokio::test]
async fn the_official_library_takes_what_svix_receivers_take() {
    let (secret, request) = request_of("Svix").await;
    let library = standardwebhooks::Webhook::new(&secret).unwrap();
    library.verify(&request.body, &request.headers).unwrap();
    assert!(library.verify(b"{}", &request.headers).is_err());
}
