//! Several processes at once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use signalpost_core::{DeadReason, DeliveryId, DeliveryState, Destination, DestinationId, WaitReason};

use super::world::{TENANT, World, budget, delivered, detach, died, failed, interrupted, park, targets};
use crate::{
    Store,
    dispatch::{DeliveryWrite, Target, Written},
    ingest::{Start, UnitOutcome},
    manage::Cancelled,
};

super::cases![
    routing_is_read_while_it_changes,
    outcome_and_cancel_agree_on_one_end,
    feeds_and_outcomes_deliver_everything_once,
    a_storm_leaves_everything_in_order,
];

const LATER: Duration = Duration::from_secs(600);

/// I13: an event that is posted after a destination was created goes to it.
async fn routing_is_read_while_it_changes(world: &World) {
    let elsewhere = world.database.handle().await;
    let mut new = Vec::new();
    for _ in 0..20 {
        new.push(world.new_destination(TENANT).await);
    }
    let created: Arc<Mutex<BTreeSet<DestinationId>>> = Arc::default();
    let maker = tokio::spawn({
        let created = Arc::clone(&created);
        async move {
            for destination in new {
                elsewhere.create_destination(&destination).await.unwrap();
                created.lock().unwrap().insert(destination.id);
            }
        }
    });
    let mut rerouted = 0;
    // The picture that this process happens to have; renewed only when the store says so.
    let mut routes = world.store.routes(TENANT).await.unwrap();
    let mut done = false;
    while !done {
        done = maker.is_finished();
        let expected = created.lock().unwrap().clone();
        let event = world.event(TENANT).await;
        loop {
            let to: Vec<_> = routes.routes.iter().map(|route| route.destination_id).collect();
            let new = world.new_event(event.clone(), &to, Start::Queued);
            let mut unit = world.unit(TENANT, vec![new]).await;
            unit.routing_version = routes.version;
            let group = world.group(vec![unit]).await;
            match world.store.ingest(&group).await.unwrap().remove(0) {
                UnitOutcome::Committed(_) => {
                    assert!(expected.iter().all(|destination| to.contains(destination)), "{expected:?} but {to:?}");
                    break;
                }
                UnitOutcome::Rerouted => {
                    rerouted += 1;
                    routes = world.store.routes(TENANT).await.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    maker.await.unwrap();
    assert!(rerouted > 0);
    assert_eq!(routes.routes.len(), 20);
}

async fn outcome_and_cancel_agree_on_one_end(world: &World) {
    let destination = world.destination().await;
    let elsewhere = world.database.handle().await;
    for round in 0..30 {
        let target = if round % 2 == 0 { world.queued(&destination).await } else { world.waiting(&destination).await };
        let batch = [delivered(target, 1)];
        let (written, cancelled) =
            tokio::join!(world.store.write(&batch, false), elsewhere.cancel_delivery(TENANT, target.delivery_id));
        let (written, cancelled) = (written.unwrap().written[0], cancelled.unwrap());
        match world.state(target.delivery_id).await {
            DeliveryState::Delivered => assert_eq!(written, Written::Done),
            DeliveryState::Cancelled => assert_eq!((written, cancelled), (Written::Superseded, Cancelled::Yes)),
            other => panic!("{other:?}"),
        }
    }
}

fn target(due: &crate::schedule::DueDelivery) -> Target {
    Target {
        delivery_id: due.delivery_id,
        tenant_id: due.tenant_id,
        destination_id: due.destination_id,
        event_id: due.event.id,
        lease: None,
    }
}

async fn feeds_and_outcomes_deliver_everything_once(world: &World) {
    let destinations = world.destinations(6).await;
    let mut all = BTreeSet::new();
    for number in 0..120 {
        all.insert(world.waiting(&destinations[number % 6]).await.delivery_id);
    }
    let handles = [Arc::clone(&world.store), world.database.handle().await, world.database.handle().await];
    let workers = handles.into_iter().map(|store| {
        tokio::spawn(async move {
            let mut done: Vec<DeliveryId> = Vec::new();
            loop {
                let due = store.take_due(budget(10, 5)).await.unwrap();
                // Each fails once, then arrives.
                let batch: Vec<_> = due
                    .deliveries
                    .iter()
                    .map(|due| match due.attempts {
                        0 => failed(target(due), 1, Duration::ZERO),
                        attempts => delivered(target(due), attempts + 1),
                    })
                    .collect();
                let written = store.write(&batch, false).await.unwrap().written;
                assert!(written.iter().all(|written| *written == Written::Done), "a lease is one owner's");
                done.extend(due.deliveries.iter().filter(|due| due.attempts > 0).map(|due| due.delivery_id));
                if due.deliveries.is_empty() && store.sample().await.unwrap().waiting == 0 {
                    return done;
                }
            }
        })
    });
    let done: Vec<_> = join_all(workers).await.into_iter().flat_map(|done| done.unwrap()).collect();
    assert_eq!(done.len(), 120);
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>(), all);
}

/// What the actors of the storm know.
#[derive(Clone)]
struct Storm {
    store: Arc<dyn Store>,
    destinations: Vec<Destination>,
    posted: Arc<Mutex<Vec<Target>>>,
}

impl Storm {
    fn some(&self, number: u64) -> Option<Target> {
        let posted = self.posted.lock().unwrap();
        let count = u64::try_from(posted.len()).unwrap();
        (count > 0).then(|| posted[usize::try_from(number % count).unwrap()])
    }

    /// One call, chosen by a number.
    async fn act(&self, number: u64) {
        let (store, pick) = (&self.store, number / 16);
        let destination = &self.destinations[usize::try_from(pick % 4).unwrap()];
        let Some(some) = self.some(pick) else { return };
        let attempts = match store.examine(&[some.delivery_id]).await.unwrap()[0] {
            Some(standing) => standing.attempts,
            None => return,
        };
        let write = |write: DeliveryWrite| async move { store.write(&[write], false).await.map(drop) };
        let next = attempts + 1;
        let result = match number % 16 {
            0 => write(delivered(some, next)).await,
            1 => write(failed(some, next, Duration::ZERO)).await,
            2 => write(failed(some, next, LATER)).await,
            3 => write(died(some, next, DeadReason::Exhausted)).await,
            4 => write(park(some, WaitReason::RateLimit, Duration::from_millis(1), pick % 2 == 0)).await,
            5 => write(detach(some, next, Duration::from_millis(1))).await,
            6 => write(interrupted(some, next)).await,
            7 => store.relay(Duration::ZERO, 3).await.map(drop),
            8 => store.retry_delivery(TENANT, some.delivery_id).await.map(drop),
            9 => store.cancel_delivery(TENANT, some.delivery_id).await.map(drop),
            10 => store.replay_event(TENANT, some.event_id, None).await.map(drop),
            11 => store.replay_dead_letter(TENANT, some.delivery_id).await.map(drop),
            12 => store.discard_dead_letter(TENANT, some.delivery_id).await.map(drop),
            13 => store.set_paused(TENANT, destination.id, pick % 3 == 0).await.map(drop),
            14 => self.feed(pick).await,
            _ => {
                let until = store.check().await.unwrap();
                store.requeue_lost(until, 5).await.map(drop)
            }
        };
        result.unwrap();
    }

    async fn feed(&self, pick: u64) -> Result<(), crate::StoreError> {
        let due = self.store.take_due(budget(8, 3)).await?;
        let half = due.deliveries.len() / 2;
        let back: Vec<_> = due.deliveries[..half].iter().map(|due| (due.delivery_id, due.leased_until)).collect();
        self.store.give_back(&back).await?;
        let batch: Vec<_> = due.deliveries[half..]
            .iter()
            .map(|due| match pick % 2 {
                0 => delivered(target(due), due.attempts + 1),
                _ => failed(target(due), due.attempts + 1, Duration::ZERO),
            })
            .collect();
        self.store.write(&batch, false).await.map(drop)
    }
}

/// Everything that actors do, in a random order on three handles. What must hold after that are the invariants, which
/// are checked after every case.
async fn a_storm_leaves_everything_in_order(world: &World) {
    let destinations = world.destinations(4).await;
    let posted: Arc<Mutex<Vec<Target>>> = Arc::default();
    let mut actors = Vec::new();
    for _ in 0..3 {
        let storm = Storm {
            store: world.database.handle().await,
            destinations: destinations.clone(),
            posted: Arc::clone(&posted),
        };
        let mut bytes = vec![0; 8 * 250];
        world.entropy().fill(&mut bytes);
        actors.push(tokio::spawn(async move {
            for number in bytes.as_chunks::<8>().0 {
                storm.act(u64::from_le_bytes(*number)).await;
            }
        }));
    }
    for number in 0..60 {
        let to: Vec<_> = destinations.iter().take(1 + number % 4).map(|destination| destination.id).collect();
        let start = if number % 3 == 0 { Start::Waiting(WaitReason::Turn) } else { Start::Queued };
        let new = world.new_event(world.event(TENANT).await, &to, start);
        let born = targets(&new);
        let mut group = world.group(vec![world.unit(TENANT, vec![new]).await]).await;
        while world.store.ingest(&group).await.unwrap() == [UnitOutcome::Rerouted] {
            group.units[0].routing_version = world.store.routes(TENANT).await.unwrap().version;
        }
        posted.lock().unwrap().extend(born);
    }
    for actor in actors {
        actor.await.unwrap();
    }
    assert_eq!(world.store.sample().await.unwrap().waiting > 0, {
        let waiting = super::invariants::deliveries(world, TENANT).await;
        waiting.values().any(|delivery| delivery.state == DeliveryState::Waiting)
    });
}
