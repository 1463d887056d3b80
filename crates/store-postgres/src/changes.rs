//! Tells when destinations change: by NOTIFY, and by a poll for what NOTIFY lost.
//!
//! Economy and speed only. The poll compares a fingerprint of what changed in the last minute; when the database was away
//! or the listening connection was new, a change is assumed.

use signalpost_store::Changes;
use sqlx::{
    PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgListener},
};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use crate::{
    error::Failure,
    pools::{self, PostgresSettings},
    transaction::bounded,
};

/// The channel of NOTIFY.
pub(crate) const CHANNEL: &str = "signalpost_destinations";

/// Starts the task. It ends when its handle is aborted.
pub(crate) fn watch(options: PgConnectOptions, settings: &PostgresSettings) -> (Changes, JoinHandle<()>) {
    let (sender, changes) = watch::channel(0);
    let watcher = Watcher {
        pool: pools::watcher(options.clone(), settings),
        options,
        settings: settings.clone(),
        sender,
        seen: None,
    };
    (changes, tokio::spawn(watcher.run()))
}

struct Watcher {
    pool: PgPool,
    options: PgConnectOptions,
    settings: PostgresSettings,
    sender: watch::Sender<u64>,
    /// The last fingerprint; None: not known, so that the next one counts as a change.
    seen: Option<(i64, i64)>,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let lost = match self.listen().await {
                Some(mut listener) => {
                    self.follow(&mut listener).await;
                    true
                }
                // Without a listener: the poll alone, at the same pace, until one can be had.
                None => !self.poll().await,
            };
            if lost {
                // What still hangs on a connection that fell silent takes its place with it.
                self.pool = pools::watcher(self.options.clone(), &self.settings);
            }
            tokio::time::sleep(self.settings.poll_interval).await;
        }
    }

    async fn listen(&self) -> Option<PgListener> {
        let listening = async {
            let mut listener = PgListener::connect_with(&self.pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        tokio::time::timeout(self.settings.list_timeout, listening).await.ok()?.ok()
    }

    /// Until the listening connection breaks in a way that it does not mend by itself, or a poll fails: a connection that
    /// fell silent is not told from one on which nothing happens.
    async fn follow(&mut self, listener: &mut PgListener) {
        let mut ticks = tokio::time::interval(self.settings.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.changed();
        loop {
            tokio::select! {
                biased;
                // Cancellation-safe: what was read stays in the connection's buffer.
                notified = listener.try_recv() => match notified {
                    // None: the connection was lost and made anew; something may have been missed.
                    Ok(Some(_) | None) => self.changed(),
                    Err(error) => {
                        tracing::debug!(%error, "listening connection lost");
                        return;
                    }
                },
                _ = ticks.tick() => if !self.poll().await {
                    return;
                },
            }
        }
    }

    /// Whether the database answered.
    async fn poll(&mut self) -> bool {
        let fingerprint = self.fingerprint().await.ok();
        let answered = fingerprint.is_some();
        if fingerprint.is_none() || fingerprint != self.seen {
            self.seen = fingerprint;
            self.changed();
        }
        answered
    }

    async fn fingerprint(&self) -> Result<(i64, i64), Failure> {
        bounded!(self.pool, self.settings.list_timeout, decided, |connection| fingerprint(&mut connection).await)
    }

    fn changed(&self) {
        self.sender.send_modify(|count| *count = count.wrapping_add(1));
    }
}

// The time of the statement, not of the clock: by a function that may change within a statement no index is searched.
async fn fingerprint(connection: &mut PgConnection) -> Result<(i64, i64), Failure> {
    let row = sqlx::query(
        "SELECT count(*) AS count, COALESCE(sum(version), 0)::bigint AS versions FROM destinations
             WHERE updated_at > statement_timestamp() - interval '1 minute'",
    )
    .fetch_one(connection)
    .await?;
    Ok((row.try_get("count")?, row.try_get("versions")?))
}
