//! Circuits, shared in Redis or, while that is away, each by its own picture.
//!
//! The machine is `Circuit` of `signalpost_core`. It lies in Redis as JSON, is read, moved on here, and written if it is still as it
//! was read: two round trips for a batch, and a few more for those that somebody else moved meanwhile. Time is that of Redis.
//!
//! Every process keeps what it last saw. While Redis is away it goes on with that, and where Redis has lost its data, or stood still while
//! a circuit moved on here, the later one is put there. Circuits are for isolation: nothing that is promised of a delivery
//! depends on two dispatchers having the same picture.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Pipeline, RedisError};
use signalpost_core::{Clock, Timestamp, circuit::Circuit};
use signalpost_limits::{
    CircuitReport, CircuitView, LimitsUnavailable,
    local::circuits::{CircuitTable, step},
};

use crate::{
    link::{Link, Session},
    scripts::{Batch, Scripts},
};

/// How often a circuit is tried that others move at the same time.
const TRIES: usize = 5;

/// Circuits as this process knows them.
#[derive(Debug)]
pub(crate) struct Circuits {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: CircuitTable,
    /// The time of Redis when our monotonic clock stood at zero; that of our own clock before Redis has told.
    epoch: Timestamp,
}

/// One circuit that is on its way back to Redis.
struct Moved {
    at: usize,
    read: String,
    circuit: Circuit,
    view: CircuitView,
}

impl Circuits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let epoch = clock.now() - clock.elapsed();
        Self { clock, state: Mutex::new(State { table: CircuitTable::default(), epoch }) }
    }

    /// Every change under the lock is complete at each step, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was seen, and says how circuits are.
    pub(crate) async fn report(&self, link: &Link, reports: &[CircuitReport]) -> Vec<CircuitView> {
        let mut views: Vec<Option<CircuitView>> = reports.iter().map(|_| None).collect();
        let shared = self.report_shared(link, reports, &mut views).await;
        let mut state = self.state();
        let now = state.epoch + self.clock.elapsed();
        // What could not be told. Where others were faster at each try, no probe is given out that they do not know of.
        let own = |(view, report): (Option<CircuitView>, &CircuitReport)| {
            view.unwrap_or_else(|| {
                let probes_wanted = if shared.is_ok() { 0 } else { report.probes_wanted };
                state.table.report(now, &CircuitReport { probes_wanted, ..report.clone() })
            })
        };
        views.into_iter().zip(reports).map(own).collect()
    }

    /// Fills in the views of those that could be moved on.
    async fn report_shared(
        &self,
        link: &Link,
        reports: &[CircuitReport],
        views: &mut [Option<CircuitView>],
    ) -> Result<(), LimitsUnavailable> {
        if reports.is_empty() {
            return Ok(());
        }
        link.call(async |scripts, session| {
            let mut left: Vec<usize> = (0..reports.len()).collect();
            for _ in 0..TRIES {
                left = self.attempt(scripts, session, reports, &left, views).await?;
                if left.is_empty() {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    /// Reads, moves on and writes; returns those that somebody else had moved meanwhile.
    async fn attempt(
        &self,
        scripts: &Scripts,
        session: &mut Session,
        reports: &[CircuitReport],
        which: &[usize],
        views: &mut [Option<CircuitView>],
    ) -> Result<Vec<usize>, RedisError> {
        let keys: Vec<String> =
            which.iter().map(|at| format!("signalpost:circuit:{}", reports[*at].destination_id)).collect();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME").cmd("MGET").arg(&keys);
        let ((seconds, micros), read): ((i64, i64), Vec<Option<String>>) =
            pipeline.query_async(&mut session.connection).await?;
        let now = Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros));
        let moved = self.move_on(now, reports, which, read);
        let mut batch = Batch::default();
        let mut writes = Vec::new();
        let mut left = Vec::new();
        for (moved, key) in moved.into_iter().zip(keys) {
            let circuit = serde_json::to_string(&moved.circuit).unwrap_or_default();
            if circuit == moved.read {
                // Nothing to write.
                self.know(now, reports, moved, views);
            } else {
                batch.push(key, [moved.read.clone(), circuit, millis(moved.circuit.kept_for())]);
                writes.push(moved);
            }
        }
        if writes.is_empty() {
            return Ok(left);
        }
        let written = scripts.call(&mut session.connection, &scripts.change, &batch).await?;
        for (number, moved) in writes.into_iter().enumerate() {
            if written.get(number) == Some(&1) {
                self.know(now, reports, moved, views);
            } else {
                left.push(moved.at);
            }
        }
        Ok(left)
    }

    fn move_on(
        &self,
        now: Timestamp,
        reports: &[CircuitReport],
        which: &[usize],
        read: Vec<Option<String>>,
    ) -> Vec<Moved> {
        let mut state = self.state();
        state.epoch = now - self.clock.elapsed();
        let moved = which.iter().zip(read).map(|(at, read)| {
            let read = read.unwrap_or_default();
            // What cannot be read is as good as lost.
            let shared = serde_json::from_str::<Circuit>(&read).ok();
            let known = state.table.get(reports[*at].destination_id);
            let mut circuit = match (shared, known) {
                (Some(shared), Some(known)) if known.since() > shared.since() => known.clone(),
                (Some(shared), _) => shared,
                (None, known) => known.cloned().unwrap_or_default(),
            };
            let view = step(&mut circuit, now, &reports[*at]);
            Moved { at: *at, read, circuit, view }
        });
        moved.collect()
    }

    fn know(&self, now: Timestamp, reports: &[CircuitReport], moved: Moved, views: &mut [Option<CircuitView>]) {
        self.state().table.know(now, reports[moved.at].destination_id, moved.circuit);
        views[moved.at] = Some(moved.view);
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}
