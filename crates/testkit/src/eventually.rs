//! Waiting for a condition, never for a time.

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// Asks `probe` again and again until it gives `Ok`, and returns what it gave.
///
/// # Panics
/// The deadline passed; with what the probe said last.
pub async fn eventually<T, E, F>(what: &str, within: Duration, mut probe: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(said)) => last = Some(said),
            Err(_) => panic!("{what}: not within {within:?}; last: {last:?}"),
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}; last: {last:?}");
        sleep(Duration::from_millis(25)).await;
    }
}
