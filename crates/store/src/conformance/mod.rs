//! What every store must do: [`exercise`] it.
//!
//! Each case gets a fresh database and relies on nothing but the port, and on the few things that a [`Database`] does for
//! it. Time is the store's and real: durations are short, and a case waits for a condition with a deadline, never for a
//! time. After each case [`invariants`] are checked over all that it left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite of tests")]

mod accounts;
mod audit;
mod births;
mod blocked;
mod circuits;
mod claims;
mod concurrent;
mod cut;
mod dead_letters;
mod deliveries;
mod destinations;
mod dropped;
mod dropped_lanes;
mod failing;
mod fairness;
mod fan_outs;
mod feed;
mod handovers;
mod heartbeats;
mod holds;
mod idempotent;
mod ingest;
mod invariants;
mod keys;
mod lane_replays;
mod lane_storm;
mod lanes;
mod leftovers;
mod lists;
mod once;
mod ordered;
mod outcomes;
mod pages;
mod parking;
mod replays;
mod retention;
mod sealed;
mod tenant_life;
mod tenant_sweep;
mod tenants;
mod world;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt as _, future::LocalBoxFuture};
use signalpost_core::{DestinationId, TenantId, Timestamp};

use crate::Store;
use world::World;

/// Makes databases.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A new and empty one, its schema made.
    async fn database(&self) -> Box<dyn Database>;
}

/// A database, and what no port does to it.
#[async_trait]
pub trait Database: Send + Sync {
    /// A handle on it, as one more process would have. Where only one process can have it: the same again.
    async fn handle(&self) -> Arc<dyn Store>;

    /// Adds a tenant.
    async fn add_tenant(&self, id: TenantId, slug: &str);

    /// Makes sure that events of that time can be stored, where that needs making.
    async fn make_room(&self, at: Timestamp);

    /// Makes the failures of that destination (table `failing`) begin that much earlier: a case cannot wait for days.
    async fn backdate_failures(&self, destination: DestinationId, by: Duration);

    /// Makes the deletion of that tenant begin that much earlier.
    async fn backdate_deletion(&self, tenant: TenantId, by: Duration);

    /// How many rows each table has of that tenant: by `tenant_id`, its own row in `tenants`, and in tables that know only
    /// destinations those of destinations that are nowhere. Without the tables that have none.
    async fn rows_of(&self, tenant: TenantId) -> BTreeMap<String, u64>;

    /// A handle whose connection to the database is cut at its next COMMIT: before the database got it, or after the
    /// database did it and before the handle hears of it. None where there is no connection.
    async fn cut(&self, when: Cut) -> Option<Arc<dyn Store>>;
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The database never gets the COMMIT.
    BeforeCommit,
    /// The database did it; its answer is lost.
    AfterCommit,
}

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a case may take, so that one that waits for ever names itself, too.
const LONGEST_CASE: Duration = Duration::from_secs(180);

/// A case.
struct Case {
    name: &'static str,
    run: for<'w> fn(&'w World) -> LocalBoxFuture<'w, ()>,
}

/// The cases of a module, by their names.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The cases of this module.
        pub(super) fn cases() -> Vec<super::Case> {
            vec![$(super::Case {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: |world| Box::pin($name(world)),
            }),*]
        }
    };
}
use cases;

fn all() -> Vec<Case> {
    [
        ingest::cases(),
        claims::cases(),
        idempotent::cases(),
        destinations::cases(),
        outcomes::cases(),
        parking::cases(),
        feed::cases(),
        fairness::cases(),
        leftovers::cases(),
        fan_outs::cases(),
        deliveries::cases(),
        dead_letters::cases(),
        replays::cases(),
        lists::cases(),
        pages::cases(),
        tenants::cases(),
        tenant_life::cases(),
        tenant_sweep::cases(),
        keys::cases(),
        audit::cases(),
        sealed::cases(),
        retention::cases(),
        lanes::cases(),
        handovers::cases(),
        blocked::cases(),
        lane_replays::cases(),
        once::cases(),
        births::cases(),
        holds::cases(),
        circuits::cases(),
        failing::cases(),
        heartbeats::cases(),
        concurrent::cases(),
        lane_storm::cases(),
        dropped::cases(),
        dropped_lanes::cases(),
        cut::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs every case, each on a new database, and tells which of them failed.
///
/// # Panics
/// The store does not do what it must.
pub async fn exercise(factory: &dyn Factory) {
    exercise_those(factory, "").await;
}

/// As [`exercise`], only the cases whose name contains `part`: to look at one.
///
/// # Panics
/// The store does not do what it must, or there is no such case.
pub async fn exercise_those(factory: &dyn Factory, part: &str) {
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in all().into_iter().filter(|case| case.name.contains(part)) {
        let run = tokio::time::timeout(LONGEST_CASE, async {
            let world = World::new(factory.database().await).await;
            (case.run)(&world).await;
            invariants::check(&world).await;
        });
        ran += 1;
        if !matches!(AssertUnwindSafe(run).catch_unwind().await, Ok(Ok(()))) {
            eprintln!("case {} failed", case.name);
            failed.push(case.name);
        }
    }
    assert!(ran > 0, "there is no case {part:?}");
    assert!(failed.is_empty(), "{} of {ran} cases failed: {failed:#?}", failed.len());
}
