//! What SQLite's errors mean to a caller of the port.

use rusqlite::{Error, ErrorCode};
use signalpost_store::StoreError;

/// A [`StoreError`] that `?` makes from the errors of the libraries used here.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) StoreError);

/// What everything that talks to SQLite returns.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A row that this version does not understand.
    pub(crate) fn internal(text: impl std::fmt::Display) -> Self {
        Self(StoreError::Internal(text.to_string()))
    }

    /// Data that the store does not take.
    pub(crate) fn data(text: impl std::fmt::Display) -> Self {
        Self(StoreError::Data(text.to_string()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error::SqliteFailure(cause, text) = &error else { return Self::internal(error) };
        let text = text.clone().unwrap_or_else(|| cause.to_string());
        Self(match cause.code {
            ErrorCode::DiskFull => StoreError::Unavailable("the disk is full".into()),
            ErrorCode::SystemIoFailure => {
                StoreError::Unavailable(format!("the disk fails: {text} ({})", cause.extended_code))
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                StoreError::Unavailable("the database file is locked by another program".into())
            }
            ErrorCode::ReadOnly => StoreError::Unavailable("the database file is read-only".into()),
            ErrorCode::CannotOpen => StoreError::Unavailable(format!("the database file cannot be opened: {text}")),
            ErrorCode::OutOfMemory => StoreError::Unavailable("out of memory".into()),
            ErrorCode::OperationInterrupted => StoreError::Unavailable("the query takes too long".into()),
            ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => StoreError::Data(text),
            _ => StoreError::Internal(text),
        })
    }
}
