//! The receiver of fast loads: one thread, keep-alive, an empty answer; each arrival is a number and a time. It verifies no
//! signatures: the end-to-end tests do.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::frame::{Reader, Side};
use crate::{epoch::Epoch, payload, processes};

/// One request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Which event it carried.
    pub number: u64,
    /// The number of its path.
    pub path: u32,
    /// When it had been read, since the epoch.
    pub at: Duration,
    /// Whether it was answered with 2xx.
    pub accepted: bool,
}

/// What the thread of the sink shares with the others.
#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    // Only the sink's own thread takes it while a load runs.
    arrivals: Mutex<Vec<Arrival>>,
    accepted: AtomicU64,
    /// The first request for each event at each path is answered with 503.
    fail_first: AtomicBool,
    failed: Mutex<HashSet<(u64, u32)>>,
    /// Id of its thread; 0 before it runs.
    thread: AtomicU32,
}

/// A running sink; stops when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    open: watch::Sender<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Away,
    Ended,
}

impl Sink {
    /// Listens at an address; port 0 is any free one.
    ///
    /// # Errors
    /// It cannot.
    pub fn start(epoch: Epoch, address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            epoch,
            arrivals: Mutex::default(),
            accepted: AtomicU64::new(0),
            fail_first: AtomicBool::new(false),
            failed: Mutex::default(),
            thread: AtomicU32::new(0),
        });
        let (open, state) = watch::channel(State::Open);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared.thread.store(processes::this_thread(), Ordering::Relaxed);
                if let Err(error) = runtime.block_on(serve(listener, address, shared, state)) {
                    eprintln!("the receiver ended: {error}");
                }
            }
        })?;
        Ok(Self { address, shared, open, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: u32) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many requests were answered with 2xx.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// All arrivals since the last time that somebody took them.
    pub fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut *lock(&self.shared.arrivals))
    }

    /// Closes all connections and refuses new ones; or listens again.
    pub fn away(&self, away: bool) {
        self.open.send_replace(if away { State::Away } else { State::Open });
    }

    /// Whether the first request for each event at each path is answered with 503.
    pub fn fail_first(&self, fail: bool) {
        self.shared.fail_first.store(fail, Ordering::Relaxed);
    }

    /// CPU seconds that it used so far.
    pub fn cpu(&self) -> f64 {
        processes::cpu_of_thread(self.shared.thread.load(Ordering::Relaxed))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.open.send_replace(State::Ended);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    listener: std::net::TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut listener = TcpListener::from_std(listener)?;
    loop {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let shared = Arc::clone(&shared);
                    // A connection that breaks is the client's affair: what it sent will come again.
                    connections.spawn(async move { converse(stream, &shared).await.ok() });
                }
                Some(_ended) = connections.join_next() => {}
                changed = state.changed() => {
                    changed.map_err(io::Error::other)?;
                    if *state.borrow() != State::Open {
                        break;
                    }
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
        if state.wait_for(|state| *state != State::Away).await.is_ok_and(|state| *state == State::Ended) {
            return Ok(());
        }
        listener = TcpListener::bind(address).await?;
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = Reader::new(Side::Requests);
    while let Some(request) = reader.next(&mut stream).await? {
        let mut answer: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        // What carries no event of ours (a ping, a look from a browser) is answered and not noted.
        if let Some(number) = payload::number_in(reader.body(&request)) {
            let at = shared.epoch.now();
            let fails =
                shared.fail_first.load(Ordering::Relaxed) && lock(&shared.failed).insert((number, request.path));
            lock(&shared.arrivals).push(Arrival { number, path: request.path, at, accepted: !fails });
            if fails {
                answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            } else {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
        stream.write_all(answer).await?;
        if request.last {
            break;
        }
    }
    Ok(())
}
