//! A host with metadata-like and internal addresses, at the end of a wire: it never sees a packet.

use signalpost_core::classify::Answer;

use crate::{
    host::{self, Host, Seen},
    isolated::{Role, role},
    support::{ALLOWED, FORBIDDEN, allowing, public, send, sender, urls},
};

const TEST: &str = "metadata::an_internal_host_sees_no_packet";

#[test]
fn an_internal_host_sees_no_packet() {
    match role(TEST) {
        Role::Outside => {}
        Role::Host => host::be(),
        Role::Inside => tokio::runtime::Runtime::new().unwrap().block_on(inside()),
    }
}

async fn inside() {
    let mut host = Host::start(TEST);
    let (guarded, _) = sender(public());
    for url in urls(FORBIDDEN) {
        let exchange = send(&guarded, &url).await;
        assert_eq!(exchange.answer, Answer::EgressDenied, "{url:?}: {:?}", exchange.error);
    }
    assert_eq!(host.seen(), Seen::NOTHING);

    // The wire works, and the counters count: the same URLs, once they are allowed.
    for (net, url) in [
        ("169.254.0.0/16", "http://169.254.169.254/latest/meta-data/"),
        ("169.254.0.0/16", "http://[::ffff:a9fe:a9fe]/"),
        ("10.0.0.0/8", "http://10.1/"),
        ("fd00::/8", "http://[fd00:ec2::254]/latest/meta-data/"),
    ] {
        let before = host.seen();
        let exchange = send(&sender(allowing(&[net])).0, url).await;
        assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{url}: {:?}", exchange.error);
        assert_eq!(&exchange.response_excerpt[..], b"host");
        let after = host.seen();
        assert!(after.packets > before.packets && after.connections == before.connections + 1, "{url}: {after:?}");
    }

    // And what is allowed to everybody goes out: the guard is not a wall.
    let before = host.seen();
    let mut to_addresses = 0;
    for url in urls(ALLOWED) {
        let exchange = send(&guarded, &url).await;
        assert_ne!(exchange.answer, Answer::EgressDenied, "{url:?}: {:?}", exchange.error);
        to_addresses += usize::from(exchange.error.as_deref() != Some("the host name does not resolve"));
    }
    assert!(to_addresses > 30);
    assert!(host.seen().packets >= before.packets + to_addresses);
}
