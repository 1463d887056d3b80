//! As `dropped`, for what lanes, claims and holds need.

use std::{num::NonZeroU32, time::Duration};

use signalpost_core::{DeadReason, DeliveryState, WaitReason, ordering::OnDead};

use super::{
    dropped::{all_or_nothing, growing, polled},
    ordered::ids,
    world::{TENANT, World, delivered, died, targets},
};
use crate::{
    dispatch::{DeliveryWrite, QueueHold, Written},
    ingest::Start,
};

super::cases![
    ingest_into_a_lane_is_all_or_nothing,
    a_hand_over_is_all_or_nothing,
    a_block_is_all_or_nothing,
    a_claim_is_all_or_nothing,
    a_hold_is_all_or_nothing,
];

const LATER: Duration = Duration::from_secs(600);

async fn ingest_into_a_lane_is_all_or_nothing(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    growing(async |polls| {
        let key = format!("lane {polls}");
        let mut events = Vec::new();
        let mut line = Vec::new();
        for _ in 0..3 {
            let new = world.new_keyed(&key, &[destination.id], Start::Queued).await;
            line.extend(targets(&new));
            events.push(new);
        }
        let group = world.group(vec![world.unit(TENANT, events).await]).await;
        let end = polled(world.store.ingest(&group), polls).await;
        let committed = all_or_nothing("a group", async || {
            let standings = world.store.examine(&ids(&line)).await.unwrap();
            standings.iter().map(Option::is_some).collect()
        })
        .await;
        assert!(end.is_none() || committed);
        if committed {
            let order = world.drain().await;
            let of_lane: Vec<_> = order.into_iter().filter(|delivery| ids(&line).contains(delivery)).collect();
            assert_eq!(of_lane, ids(&line));
        }
        end.is_some()
    })
    .await;
}

async fn a_hand_over_is_all_or_nothing(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    growing(async |polls| {
        let line = world.line(&destination, &format!("lane {polls}"), 3).await;
        let batch = [delivered(line[0], 1)];
        let end = polled(world.store.write(&batch, true), polls).await;
        let written = all_or_nothing("an end and what follows", async || {
            let ended = world.state(line[0].delivery_id).await == DeliveryState::Delivered;
            // One look at each: the first may end between them, but then all is there at the next look.
            vec![ended, !world.follows(line[1]).await]
        })
        .await;
        assert!(end.is_none() || written);
        world.store.write(&batch, true).await.unwrap();
        assert!(!world.follows(line[1]).await && world.follows(line[2]).await);
        for next in &line[1..] {
            assert_eq!(world.write(delivered(*next, 1)).await, Written::Done);
        }
        end.is_some()
    })
    .await;
}

async fn a_block_is_all_or_nothing(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    growing(async |polls| {
        let line = world.line(&destination, &format!("lane {polls}"), 2).await;
        let batch = [died(line[0], 1, DeadReason::Rejected)];
        let end = polled(world.store.write(&batch, true), polls).await;
        world.store.write(&batch, true).await.unwrap();
        assert!(world.follows(line[1]).await, "it is blocked");
        let discarded = polled(world.store.discard_dead_letter(TENANT, line[0].delivery_id), polls).await;
        let free = all_or_nothing("a discard", async || {
            let letter = world.store.dead_letter(TENANT, line[0].delivery_id).await.unwrap();
            vec![letter.is_none(), !world.follows(line[1]).await]
        })
        .await;
        assert!(discarded.is_none() || free);
        world.store.discard_dead_letter(TENANT, line[0].delivery_id).await.unwrap();
        assert_eq!(world.drain().await, ids(&line[1..]));
        end.is_some() && discarded.is_some()
    })
    .await;
}

async fn a_claim_is_all_or_nothing(world: &World) {
    let destination = world.destination().await;
    growing(async |polls| {
        let target = world.once(&destination, Start::Queued).await;
        let claim = [DeliveryWrite::Claim { target, claim: 1, deadline: LATER }];
        let end = polled(world.store.write(&claim, true), polls).await;
        let claimed = all_or_nothing("a claim", async || {
            let standing = world.standing(target.delivery_id).await;
            let waits = standing.waiting.map(|(_, reason)| reason);
            vec![waits == Some(WaitReason::InFlight), standing.state == DeliveryState::Waiting]
        })
        .await;
        assert!(end.is_none() || claimed);
        assert_eq!(world.store.write(&claim, true).await.unwrap().written, [Written::Done], "it is its own");
        world.deliver(target).await;
        end.is_some()
    })
    .await;
}

async fn a_hold_is_all_or_nothing(world: &World) {
    growing(async |polls| {
        let destinations = world.destinations(2).await;
        let hold = |destination: &signalpost_core::Destination| QueueHold {
            destination_id: destination.id,
            hold: LATER,
            trial: NonZeroU32::new(1),
        };
        let holds = [hold(&destinations[0]), hold(&destinations[1])];
        let end = polled(world.store.hold_queues(&holds), polls).await;
        let held = all_or_nothing("a hold", async || {
            let spilled = world.store.spilled().await.unwrap();
            destinations.iter().map(|destination| spilled.contains(&destination.id)).collect()
        })
        .await;
        assert!(end.is_none() || held);
        world.store.hold_queues(&holds).await.unwrap();
        for destination in &destinations {
            world.waiting(destination).await;
        }
        assert!(world.take_all().await.is_empty());
        end.is_some()
    })
    .await;
}
