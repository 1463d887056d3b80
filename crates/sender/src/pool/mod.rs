//! Connections to destinations, kept for the next request.
//!
//! A connection belongs to the request that it carries: it is driven within that request's future, so there is no task per connection and no
//! wake-up between two tasks per request, and whoever drops a request closes its connection. Between requests it lies in the list of its host
//! ([`Host`]) and nobody waits on it: whether its server has closed it shows when it is taken out ([`Connection::ask`]), or to the sweep.
//!
//! Every host has a list of its own, so none takes places from another as long as there are places: in all there are so many, as each takes a file
//! descriptor, and what comes when all are taken is closed. How long a connection lies there is counted in quarters of the time that
//! it may: by one task, the sweep, which runs only while any connection is idle, so that no request reads a clock for it.

mod connection;
mod host;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use hyper_rustls::HttpsConnector;

pub(crate) use self::{
    connection::{Connection, Unanswered},
    host::Host,
};
use crate::proxy::Way;

/// Opens connections, in clear or with TLS as the URI says.
pub(crate) type Connector = HttpsConnector<Way>;

/// A connection is idle for this many turns of the sweep, the first of which may be short: for at most the time that it may be.
const TURNS: u32 = 4;

/// The connections of a sender.
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    max_idle_per_host: usize,
    /// How many may be idle in all, and how many are.
    max_idle: usize,
    idle: AtomicUsize,
    idle_timeout: Duration,
    /// By scheme, host and port. A host leaves when the last plan that names it does.
    hosts: Mutex<HashMap<Box<str>, Weak<Host>>>,
    /// Turns of the sweep so far.
    turn: AtomicU64,
    /// Whether the sweep runs.
    sweeping: AtomicBool,
}

impl Pool {
    pub(crate) fn new(max_idle_per_host: usize, max_idle: usize, idle_timeout: Duration) -> Self {
        Self(Arc::new(Shared {
            max_idle_per_host,
            max_idle,
            idle: AtomicUsize::new(0),
            idle_timeout,
            hosts: Mutex::default(),
            turn: AtomicU64::new(0),
            sweeping: AtomicBool::new(false),
        }))
    }

    /// The connections to `origin` (`scheme://host:port`), which `connector` makes to `address`.
    pub(crate) fn host(&self, origin: &str, address: Uri, connector: &Connector) -> Arc<Host> {
        let mut hosts = self.0.hosts();
        if let Some(host) = hosts.get(origin).and_then(Weak::upgrade) {
            return host;
        }
        let host = Arc::new(Host::new(origin, address, connector.clone(), Arc::clone(&self.0)));
        hosts.insert(origin.into(), Arc::downgrade(&host));
        host
    }
}

impl Shared {
    fn hosts(&self) -> MutexGuard<'_, HashMap<Box<str>, Weak<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Called after a connection was put into a list.
    fn keep_sweeping(self: &Arc<Self>) {
        if !self.sweeping.load(Ordering::Relaxed) && !self.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Sweeping(Arc::downgrade(self)), self.idle_timeout / TURNS));
        }
    }

    /// Closes what has been idle for long enough, and what its server has closed. Whether any connection is left.
    fn sweep(&self) -> bool {
        self.turn.fetch_add(1, Ordering::Relaxed);
        // Without the lock: a host that is dropped here takes it.
        let hosts: Vec<_> = self.hosts().values().filter_map(Weak::upgrade).collect();
        hosts.iter().filter(|host| host.sweep()).count() > 0
    }

    fn any_idle(&self) -> bool {
        let hosts: Vec<_> = self.hosts().values().filter_map(Weak::upgrade).collect();
        hosts.iter().any(|host| host.idle_connections() > 0)
    }
}

/// Stands for the task that sweeps; when it ends, another one may begin.
struct Sweeping(Weak<Shared>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.sweeping.store(false, Ordering::Relaxed);
        }
    }
}

async fn sweep(mut sweeping: Sweeping, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = sweeping.0.upgrade() else { return };
        if shared.sweep() {
            continue;
        }
        // A connection that comes into a list from here on starts a sweep of its own, or is found by this one: the lists' locks order the two.
        drop(sweeping);
        if !shared.any_idle() || shared.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        sweeping = Sweeping(Arc::downgrade(&shared));
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max_idle_per_host", &self.0.max_idle_per_host)
            .field("idle_timeout", &self.0.idle_timeout)
            .finish_non_exhaustive()
    }
}
