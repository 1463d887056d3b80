//! The connection: given up at the first call that fails or takes too long, and made again in the background.
//!
//! While there is none, calls fail at once, so an absent or frozen Redis costs each process one slow call and no more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use signalpost_limits::LimitsUnavailable;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::scripts::Scripts;

/// How long a call may take, all together.
pub(crate) const CALL_TIME: Duration = Duration::from_millis(50);

/// How long making a connection may take, up to the first answer.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// Before a connection is made again.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// How many connections there have been, so that a late failure of an old one does not end a new one.
    generation: u64,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    scripts: Scripts,
    state: Mutex<State>,
    broken: Notify,
}

/// Owns the connection and the task that makes it again.
#[derive(Debug)]
pub(crate) struct Link {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Link {
    /// Tries to connect once, and goes on trying in the background.
    pub(crate) async fn start(client: Client) -> Self {
        let inner =
            Arc::new(Inner { client, scripts: Scripts::default(), state: Mutex::default(), broken: Notify::new() });
        inner.try_connect().await;
        let task = tokio::spawn(keep(Arc::clone(&inner)));
        Self { inner, task }
    }

    /// Does something with the connection, within [`CALL_TIME`].
    pub(crate) async fn call<T>(
        &self,
        work: impl AsyncFnOnce(&Scripts, &mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, LimitsUnavailable> {
        let (mut connection, generation) = {
            let state = self.inner.state();
            let connection = state.connection.clone();
            (connection.ok_or_else(|| LimitsUnavailable("not connected".to_owned()))?, state.generation)
        };
        let failure = match timeout(CALL_TIME, work(&self.inner.scripts, &mut connection)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CALL_TIME:?}"),
        };
        self.inner.give_up(generation, &failure);
        Err(LimitsUnavailable(failure))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(inner: Arc<Inner>) {
    loop {
        while inner.state().connection.is_some() {
            inner.broken.notified().await;
        }
        sleep(PAUSE).await;
        inner.try_connect().await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, generation: u64, failure: &str) {
        let mut state = self.state();
        if state.generation == generation && state.connection.take().is_some() {
            tracing::warn!(failure, "redis is away; limits are kept in this process");
            self.broken.notify_one();
        }
    }

    async fn try_connect(&self) {
        let connected = timeout(CONNECT_TIME, self.connect()).await;
        match connected {
            Ok(Ok(connection)) => {
                let mut state = self.state();
                state.connection = Some(connection);
                state.generation += 1;
                tracing::info!("connected to redis");
            }
            Ok(Err(error)) => tracing::debug!(%error, "no connection to redis"),
            Err(_) => tracing::debug!("no connection to redis in time"),
        }
    }

    /// A connection counts when Redis answers on it as fast as calls need it: a frozen one still accepts.
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        // Time-outs are ours.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.scripts.load(&mut connection).await?;
        let pong: Result<Result<String, _>, _> =
            timeout(CALL_TIME, redis::cmd("PING").query_async(&mut connection)).await;
        pong.map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        Ok(connection)
    }
}
