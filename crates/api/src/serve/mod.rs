//! Serves a router on a listener, guarded against clients that mean harm or are broken, and stops in two steps.
//!
//! | what a client does | what holds |
//! |---|---|
//! | opens very many connections | [`ConnectionLimits::most`], and a share of it for each address ([`places`]); further ones get 503 |
//! | sends no head, or one byte a second | the first head has to be there after [`ConnectionLimits::first_head`], a later one after [`ConnectionLimits::idle`] |
//! | sends an endless head | [`MOST_HEAD`] bytes, 100 headers: 431 from the protocol itself |
//! | sends a body drop by drop, or a huge one | `crate::json`, where bodies are read |
//! | does not read the answer | [`impatient`] |
//!
//! Not protected against: more traffic than the network or the kernel's own queues take. That is for who stands before it.

mod impatient;
mod places;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use impatient::Impatient;
use ipnet::IpNet;
use places::{Full, Place, Places};
use signalpost_runtime::Shutdown;
use signalpost_telemetry::names;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// The most bytes of a request's head, which is also what is read of a body at once.
const MOST_HEAD: usize = 32 * 1024;

/// The pause after a failure to accept (no file descriptors left), so that it is not tried in a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often refusals are told of.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a connection without a place is told.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 140\r\n\r\n\
    {\"type\":\"/problems/unavailable\",\"title\":\"Unavailable\",\"status\":503,\
    \"code\":\"unavailable\",\"detail\":\"There are too many connections just now.\"}";

/// What connections may take up of a listener.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at once. `SIGNALPOST_MAX_CONNECTIONS`.
    pub most: usize,
    /// Of them from one address, or one /64 of IPv6. `SIGNALPOST_MAX_CONNECTIONS_PER_ADDRESS`.
    pub most_per_address: usize,
    /// Whose connections are no share of an address: trusted proxies.
    pub exempt: Vec<IpNet>,
    /// From the connection to the whole head of its first request.
    pub first_head: Duration,
    /// From an answer to the whole head of the next request.
    pub idle: Duration,
    /// How long an answer that is small may lie unread.
    pub unread: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            most: 20_000,
            most_per_address: 2000,
            exempt: Vec::new(),
            first_head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            unread: Duration::from_secs(30),
        }
    }
}

impl ConnectionLimits {
    /// For a listener of health and metrics alone.
    pub fn of_operations() -> Self {
        Self { most: 256, most_per_address: 64, ..Self::default() }
    }
}

/// Serves until `shutdown` drains; then takes no new connection and lets requests that are under way end, until
/// `shutdown` stops.
///
/// # Errors
/// The listener has no address: it is broken.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: Shutdown,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let connections = GracefulShutdown::new();
    let places = Places::new(limits.most, limits.most_per_address, limits.exempt.clone());
    let front = Front { router, limits, shutdown: shutdown.clone() };
    let mut refusals = Refusals::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match places.take(peer.ip()) {
                Ok(place) => front.connect(stream, peer, place, &connections),
                Err(full) => refusals.refuse(&stream, full, &front.limits),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = connections.shutdown() => {}
        () = shutdown.stopped() => {}
    }
    Ok(())
}

struct Front {
    router: Router,
    limits: ConnectionLimits,
    shutdown: Shutdown,
}

impl Front {
    /// Serves one connection in a task of its own.
    fn connect(&self, stream: TcpStream, peer: SocketAddr, place: Place, connections: &GracefulShutdown) {
        // Answers are small and leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let service = TowerToHyperService::new(self.router.clone());
        let asked = Arc::new(AtomicBool::new(false));
        let service = {
            let asked = Arc::clone(&asked);
            service_fn(move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(ConnectInfo(peer));
                service.call(request)
            })
        };
        let io = TokioIo::new(Impatient::new(stream, self.limits.unread));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(MOST_HEAD)
            // Not to look for the client's end while a request is being handled: that takes a new buffer for each, as
            // the request's head lies in the one before. What is handled goes on for a client that breaks off.
            .half_close(true)
            .serve_connection(io, service);
        let connection = connections.watch(connection);
        let (stopped, first_head) = (self.shutdown.clone(), self.limits.first_head);
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                biased;
                // A client that breaks off is no error of ours.
                _closed = connection => {}
                () = stopped.stopped() => {}
                () = says_nothing(&asked, first_head) => {
                    metrics::counter!(names::HTTP_CONNECTIONS_CUT, "reason" => "head").increment(1);
                }
            }
        });
    }
}

/// Ends where no request has come in that time.
async fn says_nothing(asked: &AtomicBool, within: Duration) {
    tokio::time::sleep(within).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Connections that had no place, counted in metrics and told of now and then.
#[derive(Debug, Default)]
struct Refusals {
    untold: u64,
    told: Option<Instant>,
}

impl Refusals {
    fn refuse(&mut self, stream: &TcpStream, full: Full, limits: &ConnectionLimits) {
        // What does not fit into the empty buffer of a new connection is not worth waiting for.
        let _best_effort = stream.try_write(REFUSAL);
        metrics::counter!(names::HTTP_CONNECTIONS_REFUSED, "reason" => full.as_str()).increment(1);
        self.untold += 1;
        if self.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        let refused = std::mem::take(&mut self.untold);
        self.told = Some(Instant::now());
        match full {
            Full::All => tracing::warn!(
                refused,
                most = limits.most,
                "connections were refused: all of SIGNALPOST_MAX_CONNECTIONS are taken"
            ),
            Full::Address => tracing::warn!(
                refused,
                most = limits.most_per_address,
                "connections were refused: an address has all of SIGNALPOST_MAX_CONNECTIONS_PER_ADDRESS; is it a \
                 proxy that SIGNALPOST_TRUSTED_PROXIES should name?"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_refusal_is_a_whole_answer() {
        let text = std::str::from_utf8(super::REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "unavailable");
    }
}
