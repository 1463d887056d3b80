//! A TCP proxy between two processes, to cut or stop their connection on demand.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What the proxy does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards.
    Open,
    /// Closes every connection, and accepts none.
    Cut,
}

/// A running proxy. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of `upstream`.
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
                if *told.borrow() == Mode::Open {
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

async fn forward(mut client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        biased;
        // Ends with the connection dropped on both sides.
        _cut = mode.wait_for(|mode| *mode == Mode::Cut) => {}
        _closed = copy_bidirectional(&mut client, &mut server) => {}
    }
}
