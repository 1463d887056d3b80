//! Proxies that the environment names are not used.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use signalpost_core::classify::Answer;
use signalpost_sender::EgressProxy;

use crate::support::{allowing, send, sender, sender_through};

const INSIDE: &str = "GUARD_TEST_SEND_TO";
const NAMES: &[&str] = &["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// A server that answers every request and counts connections.
fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or_default();
            if read > 0 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        }
    });
    (address, connections)
}

/// Runs twice: in this process, and in a child whose environment names a proxy for everything.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    if let Ok(url) = std::env::var(INSIDE) {
        assert!(NAMES.iter().all(|name| std::env::var(name).is_ok()));
        let exchange = send(&sender(allowing(&["127.0.0.0/8"])).0, &url).await;
        assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{:?}", exchange.error);
        // Where a proxy would be used, it would be for a host outside of what `NO_PROXY` commonly holds. It is a reserved
        // name, so without a proxy it does not resolve.
        for url in ["http://hooks.invalid/", "https://hooks.invalid/"] {
            let exchange = send(&sender(allowing(&["127.0.0.0/8"])).0, url).await;
            assert_eq!((exchange.answer, exchange.status_code), (Answer::Unreachable, None), "{url}");
        }
        return;
    }
    let (server, reached) = serve();
    let (proxy, asked) = serve();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "environment::a_proxy_of_the_environment_is_not_used"]);
    child.env(INSIDE, format!("http://{server}/")).env_remove("NO_PROXY").env_remove("no_proxy");
    for name in NAMES {
        child.env(name, format!("http://{proxy}"));
    }
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    assert_eq!((reached.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 0));

    // The counter of the proxy counts: the same sender with the setting asks it.
    let explicit = EgressProxy::parse(&format!("http://{proxy}")).unwrap();
    let (sender, _) = sender_through(allowing(&["127.0.0.0/8"]), Some(explicit));
    send(&sender, "https://1.1.1.1/").await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
