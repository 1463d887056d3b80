//! What the API's health depends on.
//!
//! Its main duty needs the store, and a clock that agrees with the store's: ids carry our clock's millisecond, and rows
//! are kept by it. Without bus or limits it goes on: events are accepted and delivered later.

use std::{sync::Arc, time::Duration};

use signalpost_core::{Clock, Timestamp};
use signalpost_store::Store;
use signalpost_telemetry::Health;

use crate::state::Ports;

/// The largest difference between our clock and the store's.
const MAX_SKEW: Duration = Duration::from_secs(2);

/// The API's checks.
pub fn health(ports: &Ports) -> Health {
    let (store, clock) = (Arc::clone(&ports.store), Arc::clone(&ports.clock));
    let (bus, limits) = (Arc::clone(&ports.bus), Arc::clone(&ports.limits));
    Health::new("api")
        .required("store", move || check_store(Arc::clone(&store), Arc::clone(&clock)))
        .optional("bus", move || {
            let bus = Arc::clone(&bus);
            async move { bus.check().await.map_err(|error| error.to_string()) }
        })
        .optional("limits", move || {
            let limits = Arc::clone(&limits);
            async move { limits.check().await.map_err(|error| error.to_string()) }
        })
}

async fn check_store(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<(), String> {
    let before = clock.now();
    let theirs = store.check().await.map_err(|error| error.to_string())?;
    let skew = skew(before, theirs, clock.now());
    if skew > MAX_SKEW {
        return Err(format!("this machine's clock is {:.1} s off the store's", skew.as_secs_f64()));
    }
    Ok(())
}

/// How far `theirs` lies outside the time in which it was asked for.
fn skew(before: Timestamp, theirs: Timestamp, after: Timestamp) -> Duration {
    before.since(theirs).max(theirs.since(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_skew() {
        let at = Timestamp::from_millis;
        assert_eq!(skew(at(1000), at(1500), at(9000)), Duration::ZERO);
        assert_eq!(skew(at(5000), at(1000), at(5001)), Duration::from_secs(4));
        assert_eq!(skew(at(1000), at(5001), at(1001)), Duration::from_secs(4));
    }
}
