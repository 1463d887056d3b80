//! The connection to the database is cut before or after COMMIT. Nothing is known then, the caller repeats, and what was
//! asked for has happened once.

use std::{sync::Arc, time::Duration};

use signalpost_core::{DeadReason, DeliveryState, ordering::OnDead};

use super::{
    Cut,
    world::{TENANT, World, delivered, died, failed},
};
use crate::{
    Store, StoreError,
    dispatch::{DeliveryWrite, Written},
    ingest::{IngestUnit, KeyClaim, Start, StoredAnswer, UnitOutcome},
};

super::cases![
    a_request_whose_connection_is_cut_counts_once,
    a_batch_whose_connection_is_cut_is_written_once,
    a_lane_goes_on_once_whatever_is_cut,
    a_claim_whose_connection_is_cut_is_its_own,
    a_change_whose_connection_is_cut_happens_once,
];

const BOTH: [Cut; 2] = [Cut::BeforeCommit, Cut::AfterCommit];

/// A handle that is going to be cut; None where there is nothing to cut.
async fn cut(world: &World, when: Cut) -> Option<Arc<dyn Store>> {
    world.database.cut(when).await
}

fn is_unknown<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
}

async fn a_request_whose_connection_is_cut_counts_once(world: &World) {
    for when in BOTH {
        let request = async || {
            let new = world.new_event(world.event(TENANT).await, &[], Start::Queued);
            let answer = StoredAnswer { status: 202, body: new.answer.clone() };
            let claim = KeyClaim {
                scope: "events".into(),
                key: format!("{when:?}"),
                body_hash: [1; 32],
                ttl: Duration::from_secs(3600),
                answer: Arc::new(move |_| answer.clone()),
            };
            let id = new.event.id;
            (id, world.group(vec![IngestUnit { claim: Some(claim), ..world.unit(TENANT, vec![new]).await }]).await)
        };
        let Some(store) = cut(world, when).await else { return };
        let (first, group) = request().await;
        is_unknown(store.ingest(&group).await);
        let (second, group) = request().await;
        let repeated = world.store.ingest(&group).await.unwrap().remove(0);
        let there = async |id| world.store.event(TENANT, id).await.unwrap().is_some();
        let replayed = matches!(repeated, UnitOutcome::Replayed(_));
        assert_eq!(replayed, when == Cut::AfterCommit, "{repeated:?}");
        assert_eq!((there(first).await, there(second).await), (replayed, !replayed), "one of them");
    }
}

async fn a_batch_whose_connection_is_cut_is_written_once(world: &World) {
    let destination = world.destination().await;
    for when in BOTH {
        let of = [world.queued(&destination).await, world.queued(&destination).await, world.queued(&destination).await];
        let batch =
            [delivered(of[0], 1), failed(of[1], 1, Duration::from_secs(600)), died(of[2], 1, DeadReason::Rejected)];
        let Some(store) = cut(world, when).await else { return };
        is_unknown(store.write(&batch, false).await);
        let repeated = world.store.write(&batch, false).await.unwrap().written;
        if when == Cut::BeforeCommit {
            // What arrived may be written before the rest.
            assert_eq!(repeated[1..], [Written::Done; 2]);
        }
        let mut states = Vec::new();
        for target in of {
            let standing = world.standing(target.delivery_id).await;
            assert_eq!(standing.attempts, 1);
            states.push(standing.state);
        }
        assert_eq!(states, [DeliveryState::Delivered, DeliveryState::Waiting, DeliveryState::Dead]);
    }
}

async fn a_lane_goes_on_once_whatever_is_cut(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    for when in BOTH {
        let line = world.line(&destination, &format!("{when:?}"), 3).await;
        let batch = [delivered(line[0], 1)];
        let Some(store) = cut(world, when).await else { return };
        is_unknown(store.write(&batch, true).await);
        let repeated = world.store.write(&batch, true).await.unwrap();
        // Where the answer was lost, the next one is leased to the one who lost it.
        assert_eq!(repeated.followers.len(), usize::from(when == Cut::BeforeCommit));
        let next = world.standing(line[1].delivery_id).await;
        assert!(next.lease_left.is_some_and(|left| left <= crate::HANDOVER_LEASE), "{next:?}");
        assert!(world.follows(line[2]).await);
        assert_eq!(world.write(delivered(line[1], 1)).await, Written::Done);
        assert_eq!(world.drain().await, [line[2].delivery_id]);
    }
}

async fn a_claim_whose_connection_is_cut_is_its_own(world: &World) {
    let destination = world.destination().await;
    for when in BOTH {
        let target = world.once(&destination, Start::Queued).await;
        let claim = |claim| DeliveryWrite::Claim { target, claim, deadline: Duration::from_secs(600) };
        let Some(store) = cut(world, when).await else { return };
        is_unknown(store.write(&[claim(1)], false).await);
        assert_eq!(world.write(claim(1)).await, Written::Done);
        assert_eq!(world.write(claim(2)).await, Written::Superseded);
    }
}

async fn a_change_whose_connection_is_cut_happens_once(world: &World) {
    for when in BOTH {
        let destination = world.new_destination(TENANT).await;
        let Some(store) = cut(world, when).await else { return };
        is_unknown(store.create_destination(&destination).await);
        world.create(&destination).await;
        let found = world.store.destination(TENANT, destination.id).await.unwrap().unwrap();
        assert_eq!(found.version, 1);
    }
}
