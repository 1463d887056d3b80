//! Names whose addresses change between the check and the request: what is connected to is what was judged.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use signalpost_core::classify::Answer;
use signalpost_sender::{Sender, UrlDenied};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    dns::{Dns, Record, Rule, at},
    host::{self, Host, Seen},
    isolated::{PUBLIC, Role, role},
    support::{HandClock, allowing, public, send, sender},
};

const TEST: &str = "rebinding::a_name_that_changes_leads_nowhere_inside";
const DELIVERED: Answer = Answer::Status { code: 200, retry_after: None };
/// Longer than an answer of the name server is kept.
const KEPT: Duration = Duration::from_secs(6);

#[test]
fn a_name_that_changes_leads_nowhere_inside() {
    match role(TEST) {
        Role::Outside => {}
        Role::Host => host::be(),
        Role::Inside => tokio::runtime::Runtime::new().unwrap().block_on(inside()),
    }
}

/// A sender, its clock, the name server, and what goes on around.
struct World {
    sender: Sender,
    clock: Arc<HandClock>,
    dns: Dns,
    host: Host,
    /// Connections to the public address.
    outer: Arc<AtomicUsize>,
    /// Connections to any other address of this machine.
    inner: Arc<AtomicUsize>,
    /// Everything that an owner was told.
    errors: Mutex<BTreeSet<String>>,
}

impl World {
    async fn start() -> Self {
        let (outer, inner) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("[::]:80").await.unwrap();
        let counts = (Arc::clone(&outer), Arc::clone(&inner));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let to = stream.local_addr().unwrap().ip().to_canonical();
                if to.to_string() == PUBLIC { &counts.0 } else { &counts.1 }.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let _head = stream.read(&mut [0; 4096]).await;
                    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    let _gone = stream.write_all(answer).await;
                });
            }
        });
        let (sender, clock) = sender(public());
        let (dns, host) = (Dns::start(), Host::start(TEST));
        Self { sender, clock, dns, host, outer, inner, errors: Mutex::default() }
    }

    /// Sends when what was known of names is forgotten.
    async fn send(&self, name: &str) -> Answer {
        self.clock.advance(KEPT);
        self.send_now(name).await
    }

    async fn send_now(&self, name: &str) -> Answer {
        let exchange = send(&self.sender, &format!("http://{name}/")).await;
        self.errors.lock().unwrap().extend(exchange.error);
        exchange.answer
    }

    /// What a destination with this name is answered when it is created.
    async fn create(&self, name: &str) -> Result<(), UrlDenied> {
        let policy = self.sender.egress();
        policy.check_resolved(&policy.check_url(&format!("http://{name}/")).unwrap()).await
    }
}

async fn inside() {
    let mut world = World::start().await;
    rebound(&world).await;
    spoilt(&world).await;
    flapping(&world).await;
    kept(&world).await;
    failing(&world).await;

    assert_eq!(world.host.seen(), Seen::NOTHING);
    assert_eq!(world.inner.load(Ordering::SeqCst), 0);
    for error in world.errors.lock().unwrap().iter() {
        assert!(!error.contains(|character: char| character.is_ascii_digit()), "an address? {error}");
    }

    // The detectors work: a sender to which these addresses are allowed does reach them by the same names.
    for (net, name) in [("169.254.0.0/16", "rebound.example"), ("10.0.0.0/8", "chain.example")] {
        let before = world.host.seen();
        let exchange = send(&sender(allowing(&[net])).0, &format!("http://{name}/")).await;
        assert_eq!(exchange.answer, DELIVERED, "{name}: {:?}", exchange.error);
        assert_eq!(world.host.seen().connections, before.connections + 1);
    }
    world.dns.set("self.example", Rule::Has(vec![at("127.0.0.1")]));
    assert_eq!(send(&sender(allowing(&["127.0.0.0/8"])).0, "http://self.example/").await.answer, DELIVERED);
    assert_eq!(world.inner.load(Ordering::SeqCst), 1);
}

/// Public when the destination is created, internal when it is sent to.
async fn rebound(world: &World) {
    let name = "rebound.example";
    world.dns.set(name, Rule::Has(vec![at(PUBLIC)]));
    assert_eq!(world.create(name).await, Ok(()));
    assert_eq!(world.send(name).await, DELIVERED);
    assert_eq!(world.outer.load(Ordering::SeqCst), 1);
    for inner in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "fd00:ec2::254", "::1", "169.254.169.254"] {
        world.dns.set(name, Rule::Has(vec![at(inner)]));
        assert_eq!(world.send(name).await, Answer::EgressDenied, "{inner}");
        assert_eq!(world.create(name).await, Err(UrlDenied::Address), "{inner}");
    }
    assert_eq!(world.outer.load(Ordering::SeqCst), 1);
}

/// One internal address among public ones, and internal addresses behind other names, spoil all.
async fn spoilt(world: &World) {
    let has = |records: &[&str]| Rule::Has(records.iter().map(|text| at(text)).collect());
    let alias = |name| Rule::Has(vec![Record::Alias(name)]);
    for (name, rule) in [
        ("mixed.example", has(&[PUBLIC, "10.1.2.3"])),
        ("mixed-first.example", has(&["169.254.169.254", PUBLIC])),
        ("six.example", has(&[PUBLIC, "fd00:ec2::254"])),
        ("six-alone.example", has(&["fe80::1"])),
        ("mapped.example", has(&[PUBLIC, "::ffff:169.254.169.254"])),
        ("nat64.example", has(&["64:ff9b::a9fe:a9fe"])),
        ("tunnel.example", has(&["2002:a9fe:a9fe::1"])),
        ("nothing.example", has(&["0.0.0.0"])),
        ("end.example", has(&["10.1.2.3"])),
        ("middle.example", alias("end.example")),
        ("chain.example", alias("middle.example")),
        ("alias.example", alias("metadata.google.internal")),
        ("metadata.google.internal", has(&["169.254.169.254"])),
        ("loop.example", alias("localhost")),
        ("localhost", has(&["127.0.0.1"])),
    ] {
        world.dns.set(name, rule);
    }
    let names =
        ["mixed", "mixed-first", "six", "six-alone", "mapped", "nat64", "tunnel", "nothing", "chain", "alias", "loop"];
    for name in names {
        let name = format!("{name}.example");
        assert_eq!(world.create(&name).await, Err(UrlDenied::Address), "{name}");
        assert_eq!(world.send(&name).await, Answer::EgressDenied, "{name}");
    }
    world.dns.set("good-end.example", has(&[PUBLIC]));
    world.dns.set("good.example", alias("good-end.example"));
    assert_eq!(world.create("good.example").await, Ok(()));
    assert_eq!(world.send("good.example").await, DELIVERED);
}

/// Another answer to every question.
async fn flapping(world: &World) {
    let name = "flapping.example";
    world.dns.set(name, Rule::Turns(vec![vec![at(PUBLIC)], vec![at("169.254.169.254")], vec![at("127.0.0.1")]]));
    let before = world.outer.load(Ordering::SeqCst);
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(world.send(name).await);
    }
    let delivered = answers.iter().filter(|answer| **answer == DELIVERED).count();
    let denied = answers.iter().filter(|answer| **answer == Answer::EgressDenied).count();
    assert_eq!((delivered, denied), (4, 8), "{answers:?}");
    assert_eq!(world.outer.load(Ordering::SeqCst), before + 4);
}

/// Within some seconds a name has one answer.
async fn kept(world: &World) {
    let name = "kept.example";
    world.dns.set(name, Rule::Turns(vec![vec![at(PUBLIC)], vec![at("10.1.2.3")]]));
    assert_eq!(world.send(name).await, DELIVERED);
    for _ in 0..9 {
        assert_eq!(world.send_now(name).await, DELIVERED);
    }
    assert_eq!(world.dns.asked(name), 1);
    assert_eq!(world.send(name).await, Answer::EgressDenied);
}

/// A name server that fails is no fault of the URL: accepted, and tried again.
async fn failing(world: &World) {
    let name = "failing.example";
    for rule in [Rule::Fails(2), Rule::Fails(3), Rule::Fails(5), Rule::Silent, Rule::Has(Vec::new())] {
        world.dns.set(name, rule.clone());
        assert_eq!(world.create(name).await, Ok(()), "{rule:?}");
        assert_eq!(world.send(name).await, Answer::Unreachable, "{rule:?}");
    }
    assert!(world.errors.lock().unwrap().contains("the host name does not resolve"));
    world.dns.set(name, Rule::Has(vec![at(PUBLIC)]));
    assert_eq!(world.send(name).await, DELIVERED);
}
