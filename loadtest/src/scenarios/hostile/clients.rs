//! Clients that mean harm. Each holds its connection for as long as it is let, and comes again when it is cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

/// Between two bytes of a slow client.
const DRIP: Duration = Duration::from_secs(1);

/// The connections of one loopback address: fewer than its share.
const PER_ADDRESS: usize = 1500;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks once, then says nothing.
    Idle,
    /// Sends a head, a byte a second.
    Head,
    /// Sends a body, a byte a second.
    Body,
    /// Asks for much and reads nothing.
    Answer,
}

/// What they came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections that are held now.
    pub held: AtomicUsize,
    /// Connections that were cut.
    pub cut: AtomicUsize,
    /// Connections that were refused, or could not be made.
    pub refused: AtomicUsize,
}

/// So many clients of a kind, until it is dropped.
#[derive(Debug)]
pub struct Crowd {
    /// What they came to.
    pub tally: Arc<Tally>,
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Begins. `block` tells the loopback addresses of kinds apart.
    pub fn start(to: SocketAddr, key: &str, kind: Kind, count: usize, block: u8) -> Self {
        let tally = Arc::<Tally>::default();
        let key: Arc<str> = key.into();
        let mut clients = JoinSet::new();
        for number in 0..count {
            let last = u8::try_from(1 + number / PER_ADDRESS).unwrap_or(u8::MAX);
            let from = Ipv4Addr::new(127, 1, block, last);
            let (tally, key) = (Arc::clone(&tally), Arc::clone(&key));
            clients.spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(Duration::from_millis(u64::try_from(number % 2000).unwrap_or(0))).await;
                loop {
                    match connect(from, to).await {
                        Ok(stream) => {
                            tally.held.fetch_add(1, Ordering::Relaxed);
                            let _cut = hold(stream, kind, &key).await;
                            tally.held.fetch_sub(1, Ordering::Relaxed);
                            tally.cut.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {
                            tally.refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Self { tally, _clients: clients }
    }
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Unread answers are to fill the server's side soon.
    socket.set_recv_buffer_size(4096)?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Holds a connection until the other side ends it.
async fn hold(mut stream: TcpStream, kind: Kind, key: &str) -> std::io::Result<()> {
    match kind {
        Kind::Idle => {
            stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await?;
            let mut piece = [0; 1024];
            while stream.read(&mut piece).await? > 0 {}
            Ok(())
        }
        Kind::Head => {
            stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-slow: ").await?;
            drip(stream).await
        }
        Kind::Body => {
            let head = format!(
                "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
                 content-type: application/json\r\ncontent-length: 1000000\r\n\r\n{{"
            );
            stream.write_all(head.as_bytes()).await?;
            drip(stream).await
        }
        Kind::Answer => {
            // One after the other is answered, until nobody takes any more.
            let asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
            stream.write_all(&asked).await?;
            loop {
                tokio::time::sleep(DRIP).await;
                // Fails when the connection was ended.
                stream.write_all(b"x").await?;
            }
        }
    }
}

/// A byte a second; what the other side says ends it.
async fn drip(mut stream: TcpStream) -> std::io::Result<()> {
    let mut piece = [0; 1];
    loop {
        tokio::select! {
            _said = stream.read(&mut piece) => return Ok(()),
            () = tokio::time::sleep(DRIP) => stream.write_all(b"x").await?,
        }
    }
}
