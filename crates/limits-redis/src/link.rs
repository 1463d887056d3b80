//! The connection: given up at the first call that fails or takes too long, and made again in the background.
//!
//! While there is none, calls fail at once, so an absent or frozen Redis costs each process one slow call and no more.
//!
//! The link also makes a dispatcher *present*: four times a second it says that it shares what is in Redis. Whoever could
//! not for [`PRESENT_FOR`] is absent to the others, and they leave it its part of every rate; it uses that part no sooner
//! than the others must know. So at no time is more than the whole given out, whoever is cut off from Redis.
//!
//! A Redis that answers and takes nothing (read-only, full, without the replicas that it wants) is away, too: there is no connection
//! before we are present on it. What it refused made us no more present than we were, so it does not begin another outage.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use signalpost_core::Clock;
use signalpost_limits::{LimitsUnavailable, census::Census};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::scripts::{Batch, Scripts};

/// How long a call may take, all together.
pub(crate) const CALL_TIME: Duration = Duration::from_millis(50);

/// How long a dispatcher is present after it was heard.
pub(crate) const PRESENT_FOR: Duration = Duration::from_secs(1);

/// How often a dispatcher says that it is present.
const PRESENCE: Duration = Duration::from_millis(250);

/// After how long an absent dispatcher is forgotten.
const ABSENT_FOR: Duration = Duration::from_secs(60);

/// How long making a connection may take, up to the first answer.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// Before a connection is made again.
const PAUSE: Duration = Duration::from_millis(250);

/// A connection, with what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) connection: MultiplexedConnection,
    /// What Redis calls it: as long as that Redis runs, nobody else is called so.
    pub(crate) name: i64,
    /// What time it was at Redis, in microseconds, when our clock stood at zero; rather too late, as an answer takes its time.
    zero: i64,
    /// When the present call began.
    began: Duration,
}

impl Session {
    /// Until when, by the time of Redis in microseconds, somebody waits for the present call. A Redis that was frozen
    /// does all that it was asked meanwhile, for callers who have gone.
    pub(crate) fn waits_until(&self) -> String {
        self.zero.saturating_add(micros(self.began + CALL_TIME)).to_string()
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct State {
    session: Option<Session>,
    /// How many connections there have been, so that a late failure of an old one does not end a new one.
    generation: u64,
    /// When we were present at the latest, where there is no connection: when the last one was given up; at first, the start.
    lost_at: Duration,
    /// We may be present at any moment: nobody leaves us a part from then on.
    is_coming: bool,
    /// Under which name this process was present last.
    present_as: Option<i64>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    scripts: Scripts,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    broken: Notify,
    /// How many dispatchers live; 0 where nobody said so: this process is none.
    alive: AtomicU32,
    /// The same, and since when, for its part while Redis is away.
    census: Mutex<Census>,
}

/// Owns the connection and the task that makes it again.
#[derive(Debug)]
pub(crate) struct Link {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Link {
    /// Tries to connect once, and goes on trying in the background.
    pub(crate) async fn start(client: Client, clock: Arc<dyn Clock>) -> Self {
        let lost_at = clock.elapsed();
        let state = State { session: None, generation: 0, lost_at, is_coming: false, present_as: None };
        let inner = Arc::new(Inner {
            client,
            scripts: Scripts::default(),
            clock,
            state: Mutex::new(state),
            broken: Notify::new(),
            alive: AtomicU32::new(0),
            census: Mutex::default(),
        });
        inner.try_connect().await;
        let task = tokio::spawn(keep(Arc::clone(&inner)));
        Self { inner, task }
    }

    /// Does something with the connection, within [`CALL_TIME`].
    pub(crate) async fn call<T>(
        &self,
        work: impl AsyncFnOnce(&Scripts, &mut Session) -> Result<T, RedisError>,
    ) -> Result<T, LimitsUnavailable> {
        self.inner.call(work).await
    }

    /// Since when there has been no connection, where there is none, nor one that may count already. Each outage has its own moment.
    pub(crate) fn lost_at(&self) -> Option<Duration> {
        let state = self.inner.state();
        (state.session.is_none() && !state.is_coming).then_some(state.lost_at)
    }

    /// Makes this process a dispatcher, one of so many.
    pub(crate) fn set_alive(&self, alive: u32) {
        self.inner.alive.store(alive.max(1), Ordering::Relaxed);
        self.inner.census().counted(alive, self.inner.clock.elapsed());
    }

    /// By how many a limit is divided that cannot be shared now. None: nobody knows.
    pub(crate) fn parts(&self) -> Option<u32> {
        self.inner.census().parts(self.inner.clock.elapsed())
    }

    /// How many dispatchers live; 0: this process is none.
    pub(crate) fn alive(&self) -> u32 {
        self.inner.alive.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(inner: Arc<Inner>) {
    loop {
        while inner.state().session.is_some() {
            let broken = timeout(PRESENCE, inner.broken.notified()).await;
            if broken.is_err() && inner.alive.load(Ordering::Relaxed) > 0 {
                // A failure is noticed by the loop.
                let _heard = inner.be_present().await;
            }
        }
        sleep(PAUSE).await;
        inner.try_connect().await;
    }
}

impl Inner {
    fn census(&self) -> MutexGuard<'_, Census> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(
        &self,
        work: impl AsyncFnOnce(&Scripts, &mut Session) -> Result<T, RedisError>,
    ) -> Result<T, LimitsUnavailable> {
        let (mut session, generation) = {
            let state = self.state();
            let session = state.session.clone();
            (session.ok_or_else(|| LimitsUnavailable("not connected".to_owned()))?, state.generation)
        };
        session.began = self.clock.elapsed();
        let failure = match timeout(CALL_TIME, work(&self.scripts, &mut session)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CALL_TIME:?}"),
        };
        self.give_up(generation, &failure);
        Err(LimitsUnavailable(failure))
    }

    async fn be_present(&self) -> Result<(), LimitsUnavailable> {
        let (name, zero) = self
            .call(async |_, session| {
                self.say_present(session).await?;
                Ok((session.name, session.zero))
            })
            .await?;
        if let Some(session) = self.state().session.as_mut().filter(|session| session.name == name) {
            session.zero = zero;
        }
        Ok(())
    }

    /// Makes us present under the name of this session, and sets its clock anew.
    async fn say_present(&self, session: &mut Session) -> Result<(), RedisError> {
        let before = self.state().present_as.filter(|before| *before != session.name);
        let mut batch = Batch::new(vec![
            session.name.to_string(),
            before.map(|name| name.to_string()).unwrap_or_default(),
            ABSENT_FOR.as_millis().to_string(),
            session.waits_until(),
        ]);
        // A call has keys.
        batch.push("signalpost:present".to_owned(), []);
        let time = self.scripts.call(&mut session.connection, &self.scripts.be_present, &batch).await?;
        // Clocks go apart, and are set.
        session.zero = time.first().map_or(session.zero, |time| time.saturating_sub(micros(session.began)));
        self.state().present_as = Some(session.name);
        Ok(())
    }

    fn give_up(&self, generation: u64, failure: &str) {
        let mut state = self.state();
        if state.generation == generation && state.session.take().is_some() {
            state.lost_at = self.clock.elapsed();
            tracing::warn!(failure, "redis is away; limits are kept in this process");
            self.broken.notify_one();
        }
    }

    async fn try_connect(&self) {
        let mut session = match timeout(CONNECT_TIME, self.connect()).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return tracing::debug!(%error, "no connection to redis"),
            Err(_) => return tracing::debug!("no connection to redis in time"),
        };
        let is_known = self.alive.load(Ordering::Relaxed) == 0 || self.introduce(&mut session).await;
        let mut state = self.state();
        state.is_coming = false;
        if is_known {
            state.session = Some(session);
            state.generation += 1;
            drop(state);
            tracing::info!("connected to redis");
        }
    }

    /// Makes us present on a new connection, before anything is taken: else the others would still leave us a part.
    async fn introduce(&self, session: &mut Session) -> bool {
        self.state().is_coming = true;
        session.began = self.clock.elapsed();
        let failure = match timeout(CALL_TIME, self.say_present(session)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(_) => RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        tracing::debug!(error = %failure, "redis does not take that we are present");
        // An answer of the server is of the script's first write, so the others know no more of us than before. Else they may.
        if failure.into_server_errors().is_none() {
            self.state().lost_at = self.clock.elapsed();
        }
        false
    }

    /// A connection counts when Redis answers on it as fast as calls need it: a frozen one still accepts.
    async fn connect(&self) -> Result<Session, RedisError> {
        // Time-outs are ours.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.scripts.load(&mut connection).await?;
        let began = self.clock.elapsed();
        let mut asking = redis::pipe();
        asking.cmd("CLIENT").arg("ID").cmd("TIME");
        let answer = timeout(CALL_TIME, asking.query_async(&mut connection)).await;
        let (name, (seconds, part)): (i64, (i64, i64)) =
            answer.map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        let zero = seconds.saturating_mul(1_000_000).saturating_add(part).saturating_sub(micros(began));
        Ok(Session { connection, name, zero, began })
    }
}
