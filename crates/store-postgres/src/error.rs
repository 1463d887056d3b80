//! What the database answers, as the port's errors: by SQLSTATE, never by text.

use signalpost_store::StoreError;

/// Why a piece of work failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The database, or the way to it.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Somebody else decided otherwise meanwhile: all of it is rolled back. For those who give an answer of their own to it.
    #[error("decided otherwise meanwhile")]
    Overtaken,
    /// What is asked for cannot be done with what is there.
    #[error("{0}")]
    Refused(String),
    /// What we kept there does not make sense.
    #[error("{0}")]
    Inconsistent(String),
}

impl Failure {
    /// The five characters, where the database answered.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code().map(std::borrow::Cow::into_owned),
            _ => None,
        }
    }

    /// The table that the database complains about.
    pub(crate) fn table(&self) -> Option<&str> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.table(),
            _ => None,
        }
    }

    /// The database aborted the transaction for the sake of another: the same again may well succeed.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("40001" | "40P01"))
    }

    /// The connection is gone, so a transaction that was not being committed did not happen.
    pub(crate) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Io(_)) => true,
            _ => self.sqlstate().is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02")),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Timeout => Self::Unavailable(text),
            Failure::Refused(_) => Self::Data(text),
            Failure::Inconsistent(_) | Failure::Overtaken => Self::Internal(text),
            Failure::Sql(error) => match error {
                sqlx::Error::Database(error) => of_state(error.code().as_deref().unwrap_or_default(), text),
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed
                // A connection that broke in the middle of a message.
                | sqlx::Error::Protocol(_) => Self::Unavailable(text),
                // A value that cannot be sent at all.
                sqlx::Error::Encode(_) => Self::Data(text),
                _ => Self::Internal(text),
            },
        }
    }
}

fn of_state(code: &str, text: String) -> StoreError {
    match code.get(..2).unwrap_or_default() {
        // Connection, resources, operator's intervention, conflicts, locks, system errors; a password that is being
        // rotated (28), a database that is being restored (3D), a transaction that was idle for too long, and a standby
        // that is not yet promoted (25).
        "08" | "53" | "57" | "40" | "55" | "58" | "28" | "3D" | "25" => StoreError::Unavailable(text),
        "22" | "23" => StoreError::Data(text),
        _ => StoreError::Internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_decides() {
        for (code, expected) in [
            ("08006", "unavailable"),
            ("53300", "unavailable"),
            ("57P01", "unavailable"),
            ("57014", "unavailable"),
            ("40001", "unavailable"),
            ("55P03", "unavailable"),
            ("25006", "unavailable"),
            ("22021", "data"),
            ("23514", "data"),
            ("42P01", "internal"),
            ("", "internal"),
        ] {
            let class = match of_state(code, String::new()) {
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Data(_) => "data",
                StoreError::Internal(_) => "internal",
            };
            assert_eq!(class, expected, "{code}");
        }
    }
}
