//! A TCP proxy between two processes, to cut, slow or silence their connection on demand.
//!
//! A slow link delays what is sent and does not narrow it: bytes keep their distance from each other. A silent one takes
//! everything and passes nothing on, as a firewall does that forgot a connection; when it is opened again, what it took goes on.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What the proxy does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards.
    Open,
    /// Closes every connection, and accepts none.
    Cut,
    /// Forwards, each way that much later.
    Slow(Duration),
    /// Accepts connections and bytes, and passes nothing on.
    Silent,
}

/// How many chunks may be under way in one direction of a connection.
const UNDER_WAY: usize = 1024;

/// The most bytes of a chunk.
const CHUNK: usize = 64 * 1024;

/// A running proxy. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of `upstream`, which need not be there yet.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(upstream: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let mode = Arc::new(watch::channel(Mode::Open).0);
        let mut tasks = JoinSet::new();
        let told = mode.subscribe();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if *told.borrow() != Mode::Cut {
                    connections.spawn(forward(client, upstream, told.clone()));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, mode, _tasks: tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what it does, for open connections, too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// One connection, until either side ends it or it is cut. Dropping both ends closes them.
async fn forward(client: TcpStream, upstream: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let both = async {
        open(&mut mode.clone()).await;
        let server = TcpStream::connect(upstream).await?;
        // A proxy that gathered small packets would be slow by itself.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Each direction may end before the other, as with `shutdown(SHUT_WR)`.
        tokio::join!(pass(from_client, to_server, mode.clone()), pass(from_server, to_client, mode));
        std::io::Result::Ok(())
    };
    tokio::select! {
        biased;
        _cut = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        _ended = both => {}
    }
}

/// One direction, until its source ends or its target takes no more.
async fn pass(mut source: OwnedReadHalf, mut target: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let mut told = mode.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match source.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let delay = if let Mode::Slow(delay) = *told.borrow_and_update() { delay } else { Duration::ZERO };
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = chunks.recv().await {
            sleep_until(at).await;
            open(&mut mode).await;
            if target.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _closed_already = target.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// Waits until something passes.
async fn open(mode: &mut watch::Receiver<Mode>) {
    let _proxy_gone = mode.wait_for(|mode| *mode != Mode::Silent).await;
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    /// A server that sends back what it gets, behind a proxy, and a connection to it.
    async fn echo() -> (Proxy, TcpStream, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Proxy::start(listener.local_addr().expect("an address")).await.expect("a free port");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ended = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let stream = TcpStream::connect(proxy.addr()).await.expect("the proxy accepts");
        (proxy, stream, tasks)
    }

    async fn answer(stream: &mut TcpStream, said: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(said).await?;
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn open_passes_and_cut_closes() {
        let (proxy, mut stream, _tasks) = echo().await;
        assert_eq!(answer(&mut stream, b"hello").await.expect("passed"), b"hello");
        proxy.set(Mode::Cut);
        assert!(answer(&mut stream, b"again").await.is_err());
        proxy.set(Mode::Open);
        let mut stream = TcpStream::connect(proxy.addr()).await.expect("the proxy accepts");
        assert_eq!(answer(&mut stream, b"new").await.expect("passed"), b"new");
    }

    #[tokio::test]
    async fn slow_takes_its_time_both_ways() {
        let (proxy, mut stream, _tasks) = echo().await;
        proxy.set(Mode::Slow(Duration::from_millis(40)));
        let began = Instant::now();
        assert_eq!(answer(&mut stream, b"slowly").await.expect("passed"), b"slowly");
        assert!(began.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn silent_takes_all_and_gives_it_later() {
        let (proxy, mut stream, _tasks) = echo().await;
        proxy.set(Mode::Silent);
        let mut late = TcpStream::connect(proxy.addr()).await.expect("accepted nevertheless");
        assert!(timeout(Duration::from_millis(100), answer(&mut stream, b"one")).await.is_err());
        assert!(timeout(Duration::from_millis(100), answer(&mut late, b"two")).await.is_err());
        proxy.set(Mode::Open);
        let mut heard = [0; 3];
        stream.read_exact(&mut heard).await.expect("given later");
        assert_eq!(&heard, b"one");
        late.read_exact(&mut heard).await.expect("given later");
        assert_eq!(&heard, b"two");
    }
}
