//! The idle connections to one scheme, host and port.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering};

use http::Uri;
use tower::ServiceExt as _;

use super::{Connection, Connector, Shared, TURNS};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The idle connections to one scheme, host and port, and how another one is made.
pub(crate) struct Host {
    origin: Box<str>,
    address: Uri,
    connector: Connector,
    pool: Arc<Shared>,
    /// The one that was used last stands last, and is used first.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Box<Connection>,
    /// The turn of the sweep in which it came here.
    since: u64,
    _place: Place,
}

/// One of the places for idle connections of all hosts.
struct Place(Arc<Shared>);

impl Place {
    fn take(pool: &Arc<Shared>) -> Option<Self> {
        let more = |idle| (idle < pool.max_idle).then_some(idle + 1);
        pool.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(pool)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Host {
    pub(super) fn new(origin: &str, address: Uri, connector: Connector, pool: Arc<Shared>) -> Self {
        Self { origin: origin.into(), address, connector, pool, idle: Mutex::default() }
    }

    /// An idle connection. Its server may have closed it.
    pub(crate) fn idle(&self) -> Option<Box<Connection>> {
        self.list().pop().map(|idle| idle.connection)
    }

    /// A new connection, within the policy.
    ///
    /// # Errors
    /// The addresses are not allowed, or none of them can be reached.
    pub(crate) async fn connect(&self) -> Result<Box<Connection>, BoxError> {
        let stream = self.connector.clone().oneshot(self.address.clone()).await?;
        Ok(Box::new(Connection::over(stream).await?))
    }

    /// Keeps a connection for the next request, or closes it.
    pub(crate) fn keep(&self, mut connection: Box<Connection>) {
        if !connection.settle() {
            return;
        }
        let mut idle = self.list();
        if idle.len() < self.pool.max_idle_per_host
            && let Some(place) = Place::take(&self.pool)
        {
            idle.push(Idle { connection, since: self.pool.turn(), _place: place });
            drop(idle);
            self.pool.keep_sweeping();
        } else {
            drop(idle);
            connection.close();
        }
    }

    /// Closes what has been idle for long enough, and what its server has closed. Whether any connection is left.
    pub(super) fn sweep(&self) -> bool {
        let now = self.pool.turn();
        let mut idle = self.list();
        let old = idle.partition_point(|idle| now.saturating_sub(idle.since) >= u64::from(TURNS));
        let old: Vec<_> = idle.drain(..old).collect();
        idle.retain_mut(|idle| idle.connection.settle());
        let left = !idle.is_empty();
        drop(idle);
        for idle in old {
            idle.connection.close();
        }
        left
    }

    pub(super) fn idle_connections(&self) -> usize {
        self.list().len()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut hosts = self.pool.hosts();
        // Its name may stand for another one already.
        if hosts.get(&self.origin).is_some_and(|host| host.strong_count() == 0) {
            hosts.remove(&self.origin);
        }
    }
}
