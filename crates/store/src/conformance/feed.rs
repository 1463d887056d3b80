//! The feed: what is due is leased to the bus.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use signalpost_core::{DeliveryState, WaitReason};

use super::world::{TENANT, World, budget, delivered, eventually, failed};
use crate::{dispatch::Written, ingest::Start, manage::Retried, schedule::FeedBudget};

super::cases![
    nothing_is_due_where_nothing_waits,
    a_due_delivery_comes_with_all_that_a_message_needs,
    a_large_event_comes_without_its_data,
    a_taken_delivery_is_leased,
    a_lease_that_ran_out_is_taken_again,
    what_is_due_later_comes_later,
    the_earliest_due_comes_first,
    a_budget_is_kept,
    what_is_given_back_is_due_again,
    a_stale_mark_gives_nothing_back,
    the_row_goes_with_the_outcome,
    two_feeds_share_what_is_due,
    a_lease_survives_a_retry_by_hand,
];

const LEASE: Duration = Duration::from_secs(60);

async fn nothing_is_due_where_nothing_waits(world: &World) {
    world.queued(&world.destination().await).await;
    let due = world.take(10).await;
    assert!(due.deliveries.is_empty());
    assert_eq!((due.more, due.next_in), (false, None));
}

async fn a_due_delivery_comes_with_all_that_a_message_needs(world: &World) {
    let destination = world.destination().await;
    world.store.set_paused(TENANT, destination.id, true).await.unwrap();
    world.store.set_paused(TENANT, destination.id, false).await.unwrap();
    let posted = world.post_to(&[&destination], Start::Queued).await;
    let target = posted.targets[0];
    world.write(failed(target, 1, Duration::ZERO)).await;
    let before = world.now().await;
    let due = world.take_eventually(target.delivery_id).await;
    assert_eq!((due.tenant_id, due.destination_id), (TENANT, destination.id));
    assert_eq!((due.destination_version, due.attempts, due.reason), (3, 1, WaitReason::Retry));
    assert_eq!((&due.event, due.whole), (&posted.event, true));
    assert!(due.leased_until >= before + LEASE && due.leased_until <= world.now().await + LEASE);
    let standing = world.standing(target.delivery_id).await;
    assert_eq!((standing.state, standing.attempts), (DeliveryState::Waiting, 1));
    assert_eq!(standing.waiting.unwrap().0, due.leased_until, "the mark of the lease");
}

async fn a_large_event_comes_without_its_data(world: &World) {
    let destination = world.destination().await;
    for (size, whole) in [(64 * 1024, true), (64 * 1024 + 1, false), (1024 * 1024, false)] {
        let mut event = world.event(TENANT).await;
        event.data = Bytes::from(vec![b'7'; size]);
        let posted = world.post_event(event, &[&destination], Start::Waiting(WaitReason::Turn)).await;
        let due = world.take_eventually(posted.targets[0].delivery_id).await;
        assert_eq!((due.whole, due.event.data.len()), (whole, if whole { size } else { 0 }), "{size}");
        assert_eq!(due.event.id, posted.event.id);
        assert_eq!(world.store.events(&[posted.event.id]).await.unwrap()[0].data.len(), size);
    }
}

async fn a_taken_delivery_is_leased(world: &World) {
    world.waiting(&world.destination().await).await;
    assert_eq!(world.take(10).await.deliveries.len(), 1);
    let due = world.take(10).await;
    assert!(due.deliveries.is_empty() && !due.more);
    let next_in = due.next_in.expect("the lease runs out");
    assert!(next_in > LEASE / 2 && next_in <= LEASE, "{next_in:?}");
}

async fn a_lease_that_ran_out_is_taken_again(world: &World) {
    let target = world.waiting(&world.destination().await).await;
    let short = FeedBudget { lease: Duration::from_millis(30), ..budget(10, 10) };
    let first = world.store.take_due(short).await.unwrap().deliveries.remove(0);
    let second = world.take_eventually(target.delivery_id).await;
    assert!(second.leased_until > first.leased_until);
    assert_eq!(world.standing(target.delivery_id).await.waiting.unwrap().0, second.leased_until);
}

async fn what_is_due_later_comes_later(world: &World) {
    let target = world.queued(&world.destination().await).await;
    world.write(failed(target, 1, Duration::from_millis(300))).await;
    let due_at = world.standing(target.delivery_id).await.waiting.unwrap().0;
    let due = world.take(10).await;
    if due.deliveries.is_empty() {
        assert!(!due.more);
        let next_in = due.next_in.expect("it waits");
        assert!(next_in <= Duration::from_millis(300), "{next_in:?}");
        let due = world.take_eventually(target.delivery_id).await;
        assert!(due.leased_until - LEASE >= due_at, "not before it is due");
    } else {
        // On a slow machine it is due by now.
        assert!(due.deliveries[0].leased_until - LEASE >= due_at);
    }
}

async fn the_earliest_due_comes_first(world: &World) {
    let destination = world.destination().await;
    let mut targets = Vec::new();
    for _ in 0..6 {
        targets.push(world.queued(&destination).await);
    }
    // Not in the order of their ids.
    let order = [3, 0, 5, 1, 4, 2];
    for place in order {
        world.write(failed(targets[place], 1, Duration::ZERO)).await;
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(world.take(2).await.deliveries.into_iter().map(|due| due.delivery_id));
    }
    assert_eq!(taken, order.map(|place| targets[place].delivery_id));
}

async fn a_budget_is_kept(world: &World) {
    let destinations = world.destinations(3).await;
    for destination in &destinations {
        for _ in 0..5 {
            world.waiting(destination).await;
        }
    }
    let due = world.store.take_due(budget(100, 2)).await.unwrap();
    assert_eq!(due.deliveries.len(), 6, "two of each");
    for destination in &destinations {
        assert_eq!(due.deliveries.iter().filter(|due| due.destination_id == destination.id).count(), 2);
    }
    assert!(due.more);
    let due = world.store.take_due(budget(4, 100)).await.unwrap();
    assert_eq!((due.deliveries.len(), due.more), (4, true));
    let due = world.store.take_due(budget(5, 100)).await.unwrap();
    assert_eq!((due.deliveries.len(), due.more), (5, false));
}

async fn what_is_given_back_is_due_again(world: &World) {
    let destination = world.destination().await;
    let (given, kept) = (world.waiting(&destination).await, world.waiting(&destination).await);
    let first = world.take(10).await.deliveries;
    let mark = first.iter().find(|due| due.delivery_id == given.delivery_id).unwrap().leased_until;
    world.store.give_back(&[(given.delivery_id, mark)]).await.unwrap();
    world.store.give_back(&[(given.delivery_id, mark)]).await.unwrap();
    let again = world.take_all().await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].delivery_id, again[0].reason), (given.delivery_id, WaitReason::Turn));
    assert!(world.standing(kept.delivery_id).await.waiting.unwrap().0 >= mark);
    world.store.give_back(&[]).await.unwrap();
}

async fn a_stale_mark_gives_nothing_back(world: &World) {
    let target = world.waiting(&world.destination().await).await;
    let short = FeedBudget { lease: Duration::from_millis(20), ..budget(10, 10) };
    let stale = world.store.take_due(short).await.unwrap().deliveries[0].leased_until;
    let present = world.take_eventually(target.delivery_id).await.leased_until;
    world.store.give_back(&[(target.delivery_id, stale)]).await.unwrap();
    assert_eq!(world.standing(target.delivery_id).await.waiting.unwrap().0, present);
    world.deliver(target).await;
    world.store.give_back(&[(target.delivery_id, present)]).await.unwrap();
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Delivered);
}

async fn the_row_goes_with_the_outcome(world: &World) {
    let destination = world.destination().await;
    let (first, second) = (world.waiting(&destination).await, world.waiting(&destination).await);
    assert_eq!(world.take_all().await.len(), 2);
    assert_eq!(world.write(delivered(first, 1)).await, Written::Done);
    assert_eq!(world.store.sample().await.unwrap().waiting, 1);
    assert_eq!(world.write(failed(second, 1, Duration::ZERO)).await, Written::Done);
    assert_eq!(world.take_eventually(second.delivery_id).await.attempts, 1);
    assert_eq!(world.write(delivered(second, 2)).await, Written::Done);
    let sample = world.store.sample().await.unwrap();
    assert_eq!((sample.waiting, sample.queues, sample.oldest_due), (0, 0, Duration::ZERO));
    assert_eq!(world.take(10).await.next_in, None);
}

async fn two_feeds_share_what_is_due(world: &World) {
    let destinations = world.destinations(5).await;
    for round in 0..100 {
        world.waiting(&destinations[round % 5]).await;
    }
    let handles = [Arc::clone(&world.store), world.database.handle().await, world.database.handle().await];
    let feeds = handles.into_iter().map(|store| {
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let due = store.take_due(budget(7, 3)).await.unwrap();
                if due.deliveries.is_empty() && !due.more {
                    return taken;
                }
                taken.extend(due.deliveries.into_iter().map(|due| due.delivery_id));
            }
        })
    });
    let mut taken: Vec<_> = join_all(feeds).await.into_iter().flat_map(|taken| taken.unwrap()).collect();
    // A feed may have ended while another held what was left; nothing is lost by that.
    taken.extend(world.take_all().await.into_iter().map(|due| due.delivery_id));
    assert_eq!(taken.len(), 100);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 100, "none twice");
}

async fn a_lease_survives_a_retry_by_hand(world: &World) {
    let target = world.waiting(&world.destination().await).await;
    let mark = world.take(1).await.deliveries[0].leased_until;
    assert_eq!(world.store.retry_delivery(TENANT, target.delivery_id).await.unwrap(), Retried::DueNow);
    assert_eq!(world.standing(target.delivery_id).await.waiting.unwrap().0, mark, "it is on its way already");
    assert!(world.take_all().await.is_empty());
    world.store.give_back(&[(target.delivery_id, mark)]).await.unwrap();
    eventually("it is due again", async || world.take_all().await.pop()).await;
}
