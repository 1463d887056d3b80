//! Rows per second of the two statements that everything goes through: a group at ingest, a batch of outcomes.
//!
//! `cargo bench -p signalpost-store-postgres`, with the address of a PostgreSQL in `SIGNALPOST_TEST_DATABASE_URL`. One caller,
//! so that it is the time of a transaction; several processes add up until the database's disk or processors are busy.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use signalpost_core::{Clock as _, WaitReason};
use signalpost_runtime::SystemClock;
use signalpost_store::{DispatchStore as _, ScheduleStore as _, dispatch::Next, ingest::Start};
use support::{
    Database,
    fixture::{attempt, budget, destination, events, post},
};

const ROWS: usize = 30_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for size in [1, 100, 500] {
            measure(size).await;
        }
        measure_feed().await;
    });
}

async fn measure(size: usize) {
    let database = Database::new().await;
    let store = database.store().await;
    let to = destination(&store).await.id;
    let rows = if size == 1 { 1_000 } else { ROWS };
    let clock = SystemClock::new();
    let (mut ingest, mut write) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rows / size {
        let group = events(&store, to, size, Start::Queued).await;
        let start = clock.elapsed();
        let targets = post(&store, &group).await;
        ingest += clock.elapsed() - start;
        let batch: Vec<_> = targets.iter().map(|target| attempt(*target, 1, Next::Delivered)).collect();
        let start = clock.elapsed();
        store.write(&batch, false).await.expect("written");
        write += clock.elapsed() - start;
    }
    tell(&format!("ingest, groups of {size}"), rows, ingest);
    tell(&format!("write, batches of {size} first successes"), rows, write);
}

async fn measure_feed() {
    let database = Database::new().await;
    let store = database.store().await;
    let to = destination(&store).await.id;
    for _ in 0..ROWS / 500 {
        post(&store, &events(&store, to, 500, Start::Waiting(WaitReason::Turn)).await).await;
    }
    let clock = SystemClock::new();
    let mut taken = 0;
    while taken < ROWS {
        taken += store.take_due(budget(500)).await.expect("what is due").deliveries.len();
    }
    tell("take_due, 500 at once", ROWS, clock.elapsed());
}

fn tell(what: &str, rows: usize, time: Duration) {
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let rate = rows as f64 / time.as_secs_f64();
    println!("{what:<45} {rate:>9.0} rows/s");
}
