//! What one exchange costs: CPU time of this process per request to a keep-alive server on the loopback interface, which runs in a process
//! of its own.
//!
//! `cargo run --release -p signalpost-sender --example exchange [requests [at once [threads]]]`

#![allow(clippy::unwrap_used, reason = "a tool that may stop at what it did not expect")]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use signalpost_core::{
    Clock, DeliveryId, Destination, DestinationId, DestinationSecrets, DestinationSpec, Entropy, Event, EventId,
    EventMeta, Kept, TenantId, classify::Answer, secret::Secret, signature::default_signatures,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_sender::{EgressPolicy, Outgoing, Sender, SenderSettings};
use signalpost_vault::KeyRing;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("serve") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(serve());
    }
    let number = |text: Option<String>, usual: usize| text.map_or(usual, |text| text.parse().unwrap());
    let requests = number(first, 100_000);
    let at_once = number(arguments.next(), 64);
    let threads = number(arguments.next(), 1);

    let mut server =
        Command::new(std::env::current_exe().unwrap()).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(measure(address.trim(), requests, at_once));
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Answers every request with an empty 200.
async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(answer(stream));
    }
}

/// Of a client that does not pipeline.
async fn answer(mut stream: TcpStream) {
    let mut bytes = Vec::with_capacity(16 * 1024);
    loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let length: usize = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        if bytes.len() < end + 4 + length {
            continue;
        }
        bytes.clear();
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

/// Of this process, of all its threads, in microseconds.
fn cpu() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds()
}

#[allow(clippy::disallowed_methods, reason = "measures")]
async fn measure(address: &str, requests: usize, at_once: usize) {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy));
    let vault = Arc::new(KeyRing::parse(KeyRing::generate("k1", &*entropy).reveal()).unwrap());
    let egress = EgressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..EgressPolicy::public_only() };
    let settings = SenderSettings::new(egress, Arc::clone(&clock), Arc::clone(&entropy), Arc::clone(&vault));
    let sender = Arc::new(Sender::new(settings).unwrap());

    let (at, tenant_id) = (clock.now(), TenantId::DEFAULT);
    let id = DestinationId::new(at, &*entropy);
    let secrets = DestinationSecrets::signing(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    let url = format!("http://{address}/hooks/orders");
    let spec = serde_json::json!({"url": url, "event_types": ["*"]});
    let destination = Arc::new(Destination::new(
        id,
        tenant_id,
        DestinationSpec {
            signatures: default_signatures(),
            header_names: BTreeSet::new(),
            ..serde_json::from_value(spec).unwrap()
        },
        Kept::Sealed(vault.seal_destination(&*entropy, tenant_id, id, &secrets)),
        at,
    ));
    let event = Arc::new(Event {
        id: EventId::new(at, &*entropy),
        tenant_id,
        event_type: "order.created".into(),
        uid: Some("order-4711".into()),
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from(format!(r#"{{"order":4711,"note":"{}"}}"#, "x".repeat(450))),
    });

    let run = |each: usize| {
        let tasks: Vec<_> = (0..at_once)
            .map(|_| {
                let (sender, destination, event) = (Arc::clone(&sender), Arc::clone(&destination), Arc::clone(&event));
                let delivery_id = DeliveryId::new(at, &*entropy);
                tokio::spawn(async move {
                    for _ in 0..each {
                        let outgoing = Outgoing {
                            destination: &destination,
                            event: &event,
                            delivery_id,
                            attempt: 1,
                            at,
                            traceparent: None,
                        };
                        let exchange = sender.send(&outgoing).await;
                        assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{exchange:?}");
                    }
                })
            })
            .collect();
        async move {
            for task in tasks {
                task.await.unwrap();
            }
        }
    };
    run(200).await;
    let each = requests / at_once;
    let (started, used) = (Instant::now(), cpu());
    run(each).await;
    let (took, used) = (started.elapsed(), cpu() - used);
    let done = (each * at_once) as f64;
    println!("{:.2} us of CPU per request, {:.0} requests/s", used as f64 / done, done / took.as_secs_f64());
}
