//! Serving and stopping.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use signalpost_runtime::Shutdown;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (told, wait) = (Arc::clone(&entered), Arc::clone(&release));
    let slow = move || async move {
        told.notify_one();
        wait.acquire().await.unwrap().forget();
        "slow"
    };
    let router = Router::new().route("/quick", get(|| async { "quick" })).route("/slow", get(slow));
    let shutdown = Shutdown::new();
    let task = tokio::spawn(signalpost_api::serve(listener, router, shutdown.clone()));
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
