//! What was read a moment ago (economy): each thing is read by one request at a time, and used for [`LIFE`].

use std::{
    fmt,
    future::Future,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;
use signalpost_core::Clock;
use signalpost_store::StoreError;

/// How old what is used may be when a request begins, counted from before it was read. Changes hold within a second on every
/// process; the rest is for the read itself.
pub const LIFE: Duration = Duration::from_millis(800);

/// The most that is kept. What is not there is kept, too, and what is asked for rarely goes first: who tries many keys does not push out
/// those that work.
const MOST: u64 = 20_000;

/// Things of the store by what they are asked for.
pub struct Fresh<K, V> {
    known: Cache<K, Read<V>>,
    clock: Arc<dyn Clock>,
    /// Grows with each change made here: what was read before it is old.
    changes: AtomicU64,
}

#[derive(Clone)]
struct Read<V> {
    /// Just before.
    at: Duration,
    changes: u64,
    found: Result<V, StoreError>,
}

impl<K, V> Fresh<K, V>
where
    K: Hash + Eq + Send + Sync + Clone + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Knows nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { known: Cache::new(MOST), clock, changes: AtomicU64::new(0) }
    }

    /// What `read` finds, or found a moment ago.
    ///
    /// # Errors
    /// The store is away. That is not kept.
    pub async fn get<F>(&self, key: K, read: impl Fn() -> F) -> Result<V, StoreError>
    where
        F: Future<Output = Result<V, StoreError>> + Send,
    {
        let (begun, changes) = (self.clock.elapsed(), self.changes.load(Ordering::Acquire));
        let is_old = |read: &Read<V>| read.changes < changes || begun.saturating_sub(read.at) >= LIFE;
        if let Some(Read { found: Ok(found), .. }) = self.known.get(&key).await.filter(|read| !is_old(read)) {
            return Ok(found);
        }
        loop {
            let at = self.clock.elapsed();
            let changes = self.changes.load(Ordering::Acquire);
            let reading = read();
            let read = async move { Read { at, changes, found: reading.await } };
            let entry =
                self.known.entry(key.clone()).or_insert_with_if(read, |read| is_old(read) || read.found.is_err());
            let read = entry.await.into_value();
            // Another request's read may have begun long ago.
            if !is_old(&read) {
                return read.found;
            }
        }
    }

    /// From now on nothing that was read before counts.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl<K, V> fmt::Debug for Fresh<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicU32};

    use signalpost_core::Timestamp;
    use tokio::sync::Semaphore;

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(Mutex<Duration>);

    impl Hand {
        fn advance(&self, by: Duration) {
            *self.0.lock().unwrap() += by;
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(0)
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    /// Counts its reads; gives the count of then.
    struct World {
        clock: Arc<Hand>,
        fresh: Fresh<&'static str, u32>,
        reads: AtomicU32,
        gate: Semaphore,
    }

    impl World {
        fn new() -> Self {
            let clock = Arc::new(Hand::default());
            let fresh = Fresh::new(clock.clone() as Arc<dyn Clock>);
            Self { clock, fresh, reads: AtomicU32::new(0), gate: Semaphore::new(1000) }
        }

        async fn get(&self) -> u32 {
            let read = || async {
                let count = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
                self.gate.acquire().await.unwrap().forget();
                Ok(count)
            };
            self.fresh.get("key", read).await.unwrap()
        }
    }

    #[tokio::test]
    async fn what_was_read_is_used_for_a_while() {
        let world = World::new();
        assert_eq!(world.get().await, 1);
        world.clock.advance(LIFE - Duration::from_millis(1));
        assert_eq!(world.get().await, 1);
        world.clock.advance(Duration::from_millis(1));
        assert_eq!(world.get().await, 2);
        world.fresh.changed();
        assert_eq!(world.get().await, 3);
    }

    #[tokio::test]
    async fn one_reads_for_all_but_for_none_that_came_much_later() {
        let world = World::new();
        world.gate.forget_permits(1000);
        let (first, second, late) = (world.get(), world.get(), async {
            world.clock.advance(LIFE);
            let late = world.get();
            let open = async { world.gate.add_permits(2) };
            futures::join!(late, open).0
        });
        assert_eq!(futures::join!(first, second, late), (1, 1, 2));
        assert_eq!(world.reads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_tries_many_keys_fills_no_memory() {
        let fresh: Fresh<u64, Option<()>> = Fresh::new(Arc::new(Hand::default()));
        for key in 0..2 * MOST {
            assert!(fresh.get(key, || async { Ok(None) }).await.unwrap().is_none());
        }
        fresh.known.run_pending_tasks().await;
        assert!(fresh.known.entry_count() <= MOST);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let world = World::new();
        let failed = world.fresh.get("key", || async { Err(StoreError::Unavailable("away".into())) }).await;
        assert!(failed.is_err());
        assert_eq!(world.get().await, 1);
    }
}
