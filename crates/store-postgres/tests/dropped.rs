//! A future that is dropped at any await leaves all of it or nothing, of outcomes perhaps those that arrived, and its connection
//! usable.

mod support;

use std::{
    pin::pin,
    task::{Context, Poll},
};

use signalpost_core::WaitReason;
use signalpost_store::{DispatchStore, IngestStore, ScheduleStore, dispatch::Next, ingest::Start};
use signalpost_store_postgres::PostgresSettings;
use support::{
    Database,
    fixture::{attempt, budget, destination, events, post},
};

/// Polls a future so many times at most; None: it was dropped before its end.
async fn polled<F: Future>(future: F, mut most: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if most == 0 {
            return Poll::Ready(None);
        }
        most -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn at_every_await_of_ingest_outcomes_and_feed() {
    let database = Database::new().await;
    let store = database.store_with(PostgresSettings { max_connections: 2, ..PostgresSettings::default() }).await;
    let destination = destination(&store).await;
    let mut groups = Vec::new();
    let mut finished = 0;
    for most in 1.. {
        let start = if most % 2 == 0 { Start::Queued } else { Start::Waiting(WaitReason::Turn) };
        let group = events(&store, destination.id, 3, start).await;
        let ingested = polled(store.ingest(&group), most).await;
        // Something to write about, whatever came of the first.
        let targets = post(&store, &events(&store, destination.id, 3, Start::Queued).await).await;
        let batch = [
            attempt(targets[0], 1, Next::Delivered),
            attempt(targets[1], 1, Next::Retry { after: std::time::Duration::ZERO }),
            attempt(targets[2], 1, Next::Dead { reason: signalpost_core::DeadReason::Gone }),
        ];
        let written = polled(store.write(&batch, false), most).await;
        let taken = polled(store.take_due(budget(2)), most).await;
        groups.push((targets, group.units[0].events.iter().map(|new| new.event.id.uuid()).collect::<Vec<_>>()));
        if ingested.is_some() && written.is_some() && taken.is_some() {
            finished += 1;
            if finished == 3 {
                break;
            }
        }
    }
    // Everything that was under way is decided when the connections are given back.
    store.close().await;
    let mut seen = [0, 0];
    for (targets, events) in &groups {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE id = ANY($1)")
            .bind(events)
            .fetch_one(&database.sql)
            .await
            .expect("a count");
        assert!(stored == 0 || stored == 3, "{stored} of a group of 3");
        let ids: Vec<_> = targets.iter().map(|target| target.delivery_id.uuid()).collect();
        let attempts: i64 = sqlx::query_scalar("SELECT count(*) FROM attempts WHERE delivery_id = ANY($1)")
            .bind(&ids)
            .fetch_one(&database.sql)
            .await
            .expect("a count");
        assert!([0, 1, 3].contains(&attempts), "{attempts} of a batch of 3, of which one arrived");
        seen[usize::from(stored == 3)] += 1;
    }
    assert!(seen[0] >= 2 && seen[1] >= 3, "both ends were seen: {seen:?}");
    database.assert_consistent().await;
}
