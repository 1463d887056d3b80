//! A TCP proxy in front of PostgreSQL that cuts a connection at its COMMIT, or at a statement that is a transaction of its own.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Where to cut, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    Never = 0,
    /// The database never gets the COMMIT.
    BeforeCommit = 1,
    /// The database did it; the answer is lost.
    AfterCommit = 2,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct CommitProxy {
    addr: SocketAddr,
    armed: Arc<AtomicU8>,
    _tasks: JoinSet<()>,
}

/// As a client sends it: a simple query of length 11.
const COMMIT: &[u8] = b"Q\x00\x00\x00\x0bCOMMIT\x00";

/// What sqlx calls its prepared statements.
const NAME: &[u8] = b"sqlx_s_";

impl CommitProxy {
    /// In front of the server of that URL.
    pub async fn start(upstream: &str) -> Self {
        Self::start_for(upstream, None).await
    }

    /// Cuts where a prepared statement is executed whose text has that in it, too.
    pub async fn start_for(upstream: &str, text: Option<&'static str>) -> Self {
        let upstream = address(upstream).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let armed = Arc::new(AtomicU8::new(Cut::Never as u8));
        let mut tasks = JoinSet::new();
        let told = Arc::clone(&armed);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                connections.spawn(forward(client, server, Arc::clone(&told), Statements::new(text)));
            }
        });
        Self { addr, armed, _tasks: tasks }
    }

    /// The URL with the proxy in the server's place.
    pub fn url(&self, url: &str) -> String {
        url.replacen(address(url), &self.addr.to_string(), 1)
    }

    /// Cuts the next connection that commits.
    pub fn arm(&self, cut: Cut) {
        self.armed.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether it has cut since it was armed.
    pub fn has_cut(&self) -> bool {
        self.armed.load(Ordering::SeqCst) == Cut::Never as u8
    }
}

/// Host and port of a URL.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, address)| address)
}

/// The prepared statements of a connection that commit by themselves.
struct Statements {
    text: Option<&'static str>,
    names: BTreeSet<Vec<u8>>,
}

impl Statements {
    const fn new(text: Option<&'static str>) -> Self {
        Self { text, names: BTreeSet::new() }
    }

    /// Whether what a client sends at once executes one of them. Notes those that it prepares.
    fn execute(&mut self, sent: &[u8]) -> bool {
        let Some(at) = sent.windows(NAME.len()).position(|window| window == NAME) else { return false };
        let name: Vec<u8> = sent[at..].iter().copied().take_while(|byte| *byte != 0).collect();
        let has = |text: &str| sent.windows(text.len()).any(|window| window == text.as_bytes());
        if sent[0] == b'P' && self.text.is_some_and(has) {
            self.names.insert(name);
            return false;
        }
        sent[0] == b'B' && self.names.contains(&name)
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicU8>, mut statements: Statements) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                let commits = up[..read].windows(COMMIT.len()).any(|window| window == COMMIT)
                    || statements.execute(&up[..read]);
                let cut = if commits { armed.swap(Cut::Never as u8, Ordering::SeqCst) } else { Cut::Never as u8 };
                if cut == Cut::BeforeCommit as u8 || server.write_all(&up[..read]).await.is_err() {
                    return;
                }
                if cut == Cut::AfterCommit as u8 {
                    // Its answer comes when it is done.
                    let _answer = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
