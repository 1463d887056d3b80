//! A webhook receiver to try and to test with. It records what arrives, verifies its signature and misbehaves on
//! request: slow, silent, resetting, dripping, redirecting, refusing.
//!
//! It stands on the far side of the wire, so it knows nothing of Signalpost but the headers that every receiver sees.
//! Bounded in memory: whole requests are kept up to [`ReceiverSettings::keep`], histories up to
//! [`ReceiverSettings::most_ids`] ids, totals for ever.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use signalpost_receiver::{Failure, Faults, Receiver, ReceiverSettings};
//! let receiver = Receiver::start(ReceiverSettings::default()).await?;
//! receiver.set_faults(Faults::some(0.7, Failure::status(503)));
//! println!("point a destination at {}", receiver.url("/hook"));
//! # Ok::<(), std::io::Error>(()) })?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod answer;
pub mod connections;
mod control;
mod faults;
mod log;
mod server;
mod verdict;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use faults::{Failure, Faults};
use log::Log;
pub use log::{Arrival, Received, Stats};
use server::Server;
use signalpost_core::Clock;
use signalpost_runtime::SystemClock;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use verdict::{Verdict, Verifier, judge};

/// Called for each request when it has been answered, or its client has gone.
pub type Observer = Arc<dyn Fn(&Received) + Send + Sync>;

/// How a receiver is to be.
#[derive(Clone)]
pub struct ReceiverSettings {
    /// Where it listens. Default: a free port of the loopback interface.
    pub listen: SocketAddr,
    /// What signatures of Standard Webhooks are verified with (`whsec_…`, `whpk_…`). None: they are not judged.
    pub secret: Option<String>,
    /// What else must be right of a signature.
    pub verifier: Option<Verifier>,
    /// Answers with the headers of the request, as careless receivers do.
    pub echo: bool,
    /// Answers 401 to a request whose signature is wrong, as a good receiver does. Only where a secret is known.
    pub reject_invalid: bool,
    /// How it misbehaves at first.
    pub faults: Faults,
    /// Draws what fails: the same seed and order of requests give the same failures.
    pub seed: u64,
    /// How many whole requests are kept, newest last.
    pub keep: usize,
    /// Of how many webhook ids and delivery ids the history is kept.
    pub most_ids: usize,
    /// Serves `GET /_receiver/stats`, `GET /_receiver/requests`, `GET` and `PUT /_receiver/faults`.
    pub control: bool,
    /// Is told of each request.
    pub observer: Option<Observer>,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            secret: None,
            verifier: None,
            echo: false,
            reject_invalid: false,
            faults: Faults::none(),
            seed: 1,
            keep: 1_000,
            most_ids: 1_000_000,
            control: false,
            observer: None,
        }
    }
}

impl std::fmt::Debug for ReceiverSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverSettings").field("listen", &self.listen).field("faults", &self.faults).finish()
    }
}

/// Nothing like what was waited for came in time; what there was instead.
#[derive(Debug, Clone)]
pub struct NotInTime(pub Stats);

impl std::fmt::Display for NotInTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the receiver did not get in time what was waited for; it has {:?}", self.0)
    }
}

impl std::error::Error for NotInTime {}

/// A running receiver. Dropping it stops it at once: connections are closed, requests in progress stay unanswered.
pub struct Receiver {
    addr: SocketAddr,
    server: Arc<Server>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Receiver {
    /// Binds and serves until it is dropped or stopped.
    ///
    /// # Errors
    /// The address cannot be bound, or the secret is no secret.
    pub async fn start(settings: ReceiverSettings) -> io::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let listener = tokio::net::TcpListener::bind(settings.listen).await?;
        let addr = listener.local_addr()?;
        let server = Arc::new(Server::new(settings, clock)?);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(server::accept(listener, Arc::clone(&server), stop.clone(), tasks.clone()));
        Ok(Self { addr, server, stop, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a path of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{}", self.addr, path.trim_start_matches('/'))
    }

    /// Misbehaves so from the next request on, except at paths that have faults of their own.
    pub fn set_faults(&self, faults: Faults) {
        self.server.set_faults(faults);
    }

    /// Misbehaves so at one path; `None`: as everywhere.
    pub fn set_faults_at(&self, path: &str, faults: Option<Faults>) {
        self.server.set_faults_at(path, faults);
    }

    /// Verifies with this secret from the next request on, except at paths that have one of their own.
    ///
    /// # Errors
    /// It is no secret.
    pub fn set_secret(&self, secret: Option<&str>) -> io::Result<()> {
        self.server.set_secret(secret)
    }

    /// Verifies so from the next request on, except at paths that have a secret of their own; `None`: nothing is judged.
    pub fn set_verifier(&self, verifier: Option<Verifier>) {
        self.server.set_verifier(verifier);
    }

    /// Verifies with this secret at one path.
    ///
    /// # Errors
    /// It is no secret.
    pub fn set_secret_at(&self, path: &str, secret: &str) -> io::Result<()> {
        self.server.set_secret_at(path, secret)
    }

    /// The last requests that were kept, oldest first. A request appears when it has been answered, or given up.
    pub fn received(&self) -> Vec<Arc<Received>> {
        self.log().received()
    }

    /// The totals.
    pub fn stats(&self) -> Stats {
        self.log().stats()
    }

    /// How many requests came for each webhook id, answered well or not.
    pub fn requests_by_event(&self) -> HashMap<String, u64> {
        self.log().by_event(|history| history.requests)
    }

    /// How many requests were answered with 2xx for each webhook id.
    pub fn accepted_by_event(&self) -> HashMap<String, u64> {
        self.log().by_event(|history| history.accepted)
    }

    /// What came for each delivery, in order of arrival.
    pub fn by_delivery(&self) -> HashMap<String, Vec<Arrival>> {
        self.log().by_delivery()
    }

    /// The deliveries of which two requests were in progress at the same moment.
    pub fn overlapping(&self) -> Vec<String> {
        self.log().overlapping()
    }

    /// Forgets all that arrived.
    pub fn clear(&self) {
        self.log().clear();
    }

    /// Waits until `n` requests have come and been answered.
    ///
    /// # Errors
    /// They did not come within that time.
    pub async fn wait_for(&self, n: u64, within: Duration) -> Result<Stats, NotInTime> {
        self.wait_until(within, |stats| stats.answered >= n).await
    }

    /// Waits until `n` different webhook ids have been answered with 2xx.
    ///
    /// # Errors
    /// They did not come within that time.
    pub async fn wait_for_events(&self, n: u64, within: Duration) -> Result<Stats, NotInTime> {
        self.wait_until(within, |stats| stats.events_accepted >= n).await
    }

    /// Waits until the totals are so.
    ///
    /// # Errors
    /// They were not so within that time.
    pub async fn wait_until(
        &self,
        within: Duration,
        mut done: impl FnMut(&Stats) -> bool + Send,
    ) -> Result<Stats, NotInTime> {
        let log = self.log();
        let waiting = async {
            loop {
                let changed = log.changed();
                let stats = log.stats();
                if done(&stats) {
                    return stats;
                }
                changed.await;
            }
        };
        tokio::time::timeout(within, waiting).await.map_err(|_| NotInTime(log.stats()))
    }

    /// Stops listening, closes every connection and waits until all is over.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn log(&self) -> &Log {
        &self.server.log
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
