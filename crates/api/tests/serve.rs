//! Serving, against clients that mean harm, and stopping.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails in a helper fails the test")]

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use signalpost_api::ConnectionLimits;
use signalpost_runtime::Shutdown;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(10);

struct Server {
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    /// Told when the slow route was entered.
    entered: Arc<Notify>,
    /// Lets it answer.
    release: Arc<Semaphore>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start() -> Server {
    start_with(ConnectionLimits::default()).await
}

async fn start_with(limits: ConnectionLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (told, wait) = (Arc::clone(&entered), Arc::clone(&release));
    let slow = move || async move {
        told.notify_one();
        wait.acquire().await.unwrap().forget();
        "slow"
    };
    // More than any buffer of the kernel takes.
    let huge = || async { vec![b'x'; 64 * 1024 * 1024] };
    let router =
        Router::new().route("/quick", get(|| async { "quick" })).route("/slow", get(slow)).route("/huge", get(huge));
    let shutdown = Shutdown::new();
    let task = tokio::spawn(signalpost_api::serve(listener, router, limits, shutdown.clone()));
    Server { address, shutdown, entered, release, task }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads until the text has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        let mut piece = [0; 1024];
        let count = timeout(SOON, stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_end() {
    let server = start().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    ask(&mut idle, "/quick").await;
    assert!(read_until(&mut idle, "quick").await.starts_with("HTTP/1.1 200"));
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    ask(&mut busy, "/slow").await;
    timeout(SOON, server.entered.notified()).await.unwrap();

    server.shutdown.drain();
    let closed = timeout(SOON, idle.read(&mut [0; 1])).await.unwrap();
    assert_eq!(closed.unwrap(), 0, "an idle connection is closed");
    assert!(!server.task.is_finished(), "a request is under way");
    server.release.add_permits(1);
    read_until(&mut busy, "slow").await;
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_waits_for_nothing() {
    let server = start().await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    ask(&mut busy, "/slow").await;
    timeout(SOON, server.entered.notified()).await.unwrap();
    server.shutdown.stop();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    let closed = timeout(SOON, busy.read(&mut [0; 1])).await.unwrap();
    assert!(closed.is_err() || closed.is_ok_and(|count| count == 0), "its connection is closed");
}

#[tokio::test]
async fn who_has_said_all_gets_his_answer() {
    let server = start().await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    ask(&mut busy, "/slow").await;
    timeout(SOON, server.entered.notified()).await.unwrap();
    busy.shutdown().await.unwrap();
    // The server has seen that end before it sees this one's request.
    let mut other = TcpStream::connect(server.address).await.unwrap();
    ask(&mut other, "/quick").await;
    read_until(&mut other, "quick").await;
    server.release.add_permits(1);
    let answer = last_words(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("slow"), "{answer}");
}

/// Waits until the other side has closed; what it said.
async fn last_words(stream: &mut TcpStream) -> String {
    let mut words = Vec::new();
    // A reset is a close, too.
    let _reset = timeout(SOON, stream.read_to_end(&mut words)).await.expect("it is still open");
    String::from_utf8_lossy(&words).into_owned()
}

fn impatient() -> ConnectionLimits {
    ConnectionLimits {
        first_head: Duration::from_millis(300),
        idle: Duration::from_millis(600),
        unread: Duration::from_millis(300),
        ..ConnectionLimits::default()
    }
}

#[tokio::test]
async fn slow_clients_are_cut_off_while_others_are_served() {
    let server = start_with(impatient()).await;
    let mut loris = Vec::new();
    for number in 0..50 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let said: &[u8] = match number % 5 {
            0 => b"",
            1 => b"GET /quick HTTP/1.1\r\nhost: x\r\nx-half: ",
            // An answer that is never read.
            2 => b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n",
            // Idle after a request.
            3 => b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n",
            _ => b"\r\n\r\nGET",
        };
        stream.write_all(said).await.unwrap();
        loris.push(stream);
    }
    let mut other = TcpStream::connect(server.address).await.unwrap();
    ask(&mut other, "/quick").await;
    read_until(&mut other, "quick").await;
    // Those that were not read are told of a part of the answer only: they were cut, not served to the end.
    for (number, stream) in loris.iter_mut().enumerate() {
        if number % 5 == 2 {
            until_cut(stream).await;
        }
        let words = last_words(stream).await;
        match number % 5 {
            2 => {}
            3 => assert!(words.ends_with("quick"), "{words}"),
            _ => assert_eq!(words, "", "connection {number}"),
        }
    }
    let mut other = TcpStream::connect(server.address).await.unwrap();
    ask(&mut other, "/quick").await;
    read_until(&mut other, "quick").await;
}

/// Waits, without reading, until the other side has gone: then writing fails.
async fn until_cut(stream: &mut TcpStream) {
    let cut = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, cut).await.expect("an unread answer is kept");
}

#[tokio::test]
async fn a_connection_that_is_used_is_not_cut() {
    let server = start_with(impatient()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        ask(&mut stream, "/quick").await;
        read_until(&mut stream, "quick").await;
    }
    // A request that takes long is no slow client.
    ask(&mut stream, "/slow").await;
    timeout(SOON, server.entered.notified()).await.unwrap();
    // Longer than each patience of `impatient`: nothing tells that nobody is cut.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.release.add_permits(1);
    read_until(&mut stream, "slow").await;
}

#[tokio::test]
async fn connections_are_counted_in_all_and_by_address() {
    let server = start_with(ConnectionLimits { most: 3, most_per_address: 2, ..ConnectionLimits::default() }).await;
    let from = |address: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(server.address)
    };
    let served = |mut stream: TcpStream| async move {
        ask(&mut stream, "/quick").await;
        read_until(&mut stream, "quick").await;
        stream
    };
    let first = served(from([127, 0, 0, 2]).await.unwrap()).await;
    let _second = served(from([127, 0, 0, 2]).await.unwrap()).await;
    let refused = last_words(&mut from([127, 0, 0, 2]).await.unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 5"), "{refused}");
    let _third = served(from([127, 0, 0, 3]).await.unwrap()).await;
    let refused = last_words(&mut from([127, 0, 0, 4]).await.unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    drop(first);
    let free = async {
        loop {
            let mut stream = from([127, 0, 0, 2]).await.unwrap();
            ask(&mut stream, "/quick").await;
            let mut piece = [0; 64];
            let count = stream.read(&mut piece).await.unwrap_or(0);
            if piece[..count].starts_with(b"HTTP/1.1 200") {
                return;
            }
        }
    };
    timeout(SOON, free).await.expect("a place that was given back is taken again");
}

#[tokio::test]
async fn a_head_is_bounded() {
    let server = start().await;
    for (head, status) in [
        (format!("GET /quick HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(16 * 1024)), "200"),
        (format!("GET /quick HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(64 * 1024)), "431"),
        (format!("GET /quick HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(101)), "431"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // It may be closed before all of it was taken.
        let _cut = stream.write_all(head.as_bytes()).await;
        let mut piece = [0; 12];
        timeout(SOON, stream.read_exact(&mut piece)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&piece), format!("HTTP/1.1 {status}"), "{} bytes", head.len());
    }
}
