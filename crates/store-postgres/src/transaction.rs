//! One transaction, or one read: bounded in time, and tried again where that is safe.

use std::time::Duration;

use crate::error::Failure;

/// How often a transaction is tried that the database aborts for the sake of others.
const MOST_CONFLICTS: u32 = 6;

/// Decides whether a failed try is repeated.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    conflicts: u32,
    lost: bool,
}

impl Tries {
    /// Gives the failure back where trying again makes no sense; else waits a moment. `decided`: COMMIT was sent, so a lost
    /// connection leaves it open whether it happened.
    pub(crate) async fn judge(&mut self, failure: Failure, decided: bool) -> Option<Failure> {
        if failure.is_conflict() && self.conflicts < MOST_CONFLICTS {
            self.conflicts += 1;
            tracing::debug!(error = %failure, tries = self.conflicts, "transaction aborted, trying again");
            tokio::time::sleep(Duration::from_millis(u64::from(self.conflicts) * 5)).await;
            return None;
        }
        if failure.is_lost_connection() && !decided && !self.lost {
            self.lost = true;
            return None;
        }
        Some(failure)
    }
}

/// Runs work on a connection of a pool: `bounded!(pool, time, decided, |connection| work)`. A connection whose work ran out of
/// time is closed, not given back: nobody knows what state it is in.
macro_rules! bounded {
    ($pool:expr, $time:expr, $decided:ident, |$connection:ident| $work:expr) => {{
        let mut tries = $crate::transaction::Tries::default();
        loop {
            let mut $decided = false;
            let failure = match $pool.acquire().await {
                Err(error) => $crate::error::Failure::Sql(error),
                Ok(mut $connection) => {
                    let work = async { $work };
                    let outcome: Result<Result<_, $crate::error::Failure>, _> = tokio::time::timeout($time, work).await;
                    match outcome {
                        Ok(Ok(value)) => break Ok(value),
                        Ok(Err(failure)) => failure,
                        Err(_) => {
                            $decided = true;
                            $connection.close_on_drop();
                            $crate::error::Failure::Timeout
                        }
                    }
                }
            };
            if let Some(failure) = tries.judge(failure, $decided).await {
                break Err(failure);
            }
        }
    }};
}

/// Runs work in a transaction of the main pool: `transact!(store, |transaction| work)`, where the work is a future of a
/// `Result<_, Failure>` that can be made anew for each try. Of another pool: `transact!(store, in pool, |transaction| work)`.
macro_rules! transact {
    (@ $pool:expr, $time:expr, |$transaction:ident| $work:expr) => {
        $crate::transaction::bounded!($pool, $time, decided, |connection| {
            let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
            let value = {
                let $transaction: &mut sqlx::PgConnection = &mut transaction;
                $work.await?
            };
            decided = true;
            transaction.commit().await?;
            Ok(value)
        })
    };
    ($store:expr, |$transaction:ident| $work:expr) => {
        $crate::transaction::transact!($store, $store.settings.operation_timeout, |$transaction| $work)
    };
    ($store:expr, in $pool:ident, |$transaction:ident| $work:expr) => {
        $crate::transaction::transact!(@ $store.$pool, $store.settings.operation_timeout, |$transaction| $work)
    };
    ($store:expr, $time:expr, |$transaction:ident| $work:expr) => {
        $crate::transaction::transact!(@ $store.main, $time, |$transaction| $work)
    };
}

/// Runs one statement, or several that need no common snapshot, without a transaction: `read!(store, pool, |connection| work)`.
macro_rules! read {
    ($store:expr, $pool:ident, |$connection:ident| $work:expr) => {
        $crate::transaction::bounded!($store.$pool, $store.settings.operation_timeout, decided, |connection| {
            let $connection: &mut sqlx::PgConnection = &mut connection;
            let value = $work.await?;
            Ok(value)
        })
    };
}

pub(crate) use bounded;
pub(crate) use read;
pub(crate) use transact;
