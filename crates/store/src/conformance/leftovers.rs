//! What others left: old outbox records, deliveries that the bus lost, what waits for a deleted destination.

use std::time::Duration;

use signalpost_core::{DeliveryState, DestinationState, WaitReason};

use super::world::{TENANT, World, delivered, detach, failed, park};
use crate::{
    dispatch::{DeliveryWrite, Target, Written},
    ingest::Start,
};

super::cases![
    the_relay_takes_old_records_only,
    the_relay_takes_the_oldest_first,
    the_relay_anchors_only_what_is_still_queued,
    two_relays_share_the_records,
    records_of_many_deliveries_are_taken_all_the_same,
    what_the_bus_lost_is_found,
    what_is_in_an_outbox_record_is_not_lost,
    the_mark_does_not_pass_an_outbox_record,
    what_came_later_is_not_lost,
    the_reconciler_goes_on_where_it_stopped,
    a_deleted_destination_is_swept,
    a_deleted_destination_leaves_no_queue_on_trial,
    a_request_that_is_out_is_not_swept,
    sweeping_is_bounded,
];

const HOUR: Duration = Duration::from_secs(3600);

async fn the_relay_takes_old_records_only(world: &World) {
    let target = world.queued(&world.destination().await).await;
    assert_eq!(world.store.relay(HOUR, 10).await.unwrap(), 0);
    assert_eq!(world.state(target.delivery_id).await, DeliveryState::Queued);
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    let standing = world.standing(target.delivery_id).await;
    assert_eq!((standing.state, standing.attempts), (DeliveryState::Waiting, 0));
    assert_eq!(world.take(10).await.deliveries[0].delivery_id, target.delivery_id);
}

async fn the_relay_takes_the_oldest_first(world: &World) {
    let destination = world.destination().await;
    let mut targets = Vec::new();
    for _ in 0..3 {
        targets.push(world.queued(&destination).await);
    }
    assert!(world.store.sample().await.unwrap().outbox_age < HOUR);
    assert_eq!(world.store.relay(Duration::ZERO, 2).await.unwrap(), 2);
    let mut states = Vec::new();
    for target in &targets {
        states.push(world.state(target.delivery_id).await);
    }
    assert_eq!(states, [DeliveryState::Waiting, DeliveryState::Waiting, DeliveryState::Queued]);
    assert_eq!(world.store.relay(Duration::ZERO, 2).await.unwrap(), 1);
    assert_eq!(world.store.relay(Duration::ZERO, 2).await.unwrap(), 0);
}

async fn the_relay_anchors_only_what_is_still_queued(world: &World) {
    let destinations = world.destinations(4).await;
    let all: Vec<_> = destinations.iter().collect();
    let targets = world.post_to(&all, Start::Queued).await.targets;
    world.deliver(targets[0]).await;
    world.write(failed(targets[1], 1, HOUR)).await;
    world.write(DeliveryWrite::End { target: targets[2], dead: None }).await;
    let before = world.standing(targets[1].delivery_id).await;
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(world.state(targets[0].delivery_id).await, DeliveryState::Delivered);
    assert_eq!(world.standing(targets[1].delivery_id).await, before);
    assert_eq!(world.state(targets[2].delivery_id).await, DeliveryState::Cancelled);
    let taken: Vec<_> = world.take_all().await.into_iter().map(|due| due.delivery_id).collect();
    assert_eq!(taken, [targets[3].delivery_id]);
}

async fn two_relays_share_the_records(world: &World) {
    let destination = world.destination().await;
    for _ in 0..20 {
        world.queued(&destination).await;
    }
    let elsewhere = world.database.handle().await;
    let mut taken = 0;
    loop {
        let both = tokio::join!(world.store.relay(Duration::ZERO, 3), elsewhere.relay(Duration::ZERO, 3));
        let both = both.0.unwrap() + both.1.unwrap();
        taken += both;
        if both == 0 {
            break;
        }
    }
    assert_eq!(taken, 20);
    assert_eq!(world.take_all().await.len(), 20);
}

/// Posts, and has the record acknowledged: from then on it is on the bus alone.
async fn on_the_bus(world: &World, count: usize) -> Vec<Target> {
    let destination = world.destination().await;
    let mut targets = Vec::new();
    let mut group = world.group(Vec::new()).await;
    for _ in 0..count {
        let posted = world.post_to(&[&destination], Start::Queued).await;
        targets.push(posted.targets[0]);
        group.published.push(posted.outbox_id);
    }
    world.store.ingest(&group).await.unwrap();
    targets
}

/// Runs the reconciler until it comes to the end.
async fn requeue(world: &World, until: signalpost_core::Timestamp, most: usize) -> usize {
    let mut anchored = 0;
    for _ in 0..1000 {
        let (step, at_end) = world.store.requeue_lost(until, most).await.unwrap();
        assert!(step <= most);
        anchored += step;
        if at_end {
            return anchored;
        }
    }
    panic!("the reconciler does not come to an end");
}

/// A time after everything that was accepted so far.
async fn after_all(world: &World) -> signalpost_core::Timestamp {
    world.now().await + Duration::from_millis(5)
}

async fn records_of_many_deliveries_are_taken_all_the_same(world: &World) {
    // More than one transaction takes, in two records and in three.
    let destination = world.destination().await;
    let many = vec![&destination; 11_000];
    for _ in 0..3 {
        world.post_to(&many, Start::Queued).await;
    }
    assert_eq!(world.store.relay(Duration::ZERO, 2).await.unwrap(), 2, "no less than there is");
    assert_eq!(world.store.sample().await.unwrap().waiting, 22_000);
    assert_eq!(world.store.relay(Duration::ZERO, 2).await.unwrap(), 1);
    assert_eq!(world.store.sample().await.unwrap().waiting, 33_000);
}

async fn what_the_bus_lost_is_found(world: &World) {
    let targets = on_the_bus(world, 4).await;
    world.deliver(targets[0]).await;
    world.write(failed(targets[1], 1, HOUR)).await;
    let retry = world.standing(targets[1].delivery_id).await;
    assert_eq!(requeue(world, after_all(world).await, 100).await, 2);
    assert_eq!(world.state(targets[0].delivery_id).await, DeliveryState::Delivered);
    assert_eq!(world.standing(targets[1].delivery_id).await, retry);
    let mut taken: Vec<_> = world.take_all().await.into_iter().map(|due| due.delivery_id).collect();
    taken.sort();
    let mut expected = vec![targets[2].delivery_id, targets[3].delivery_id];
    expected.sort();
    assert_eq!(taken, expected);
    assert_eq!(requeue(world, after_all(world).await, 100).await, 0, "once");
}

async fn what_is_in_an_outbox_record_is_not_lost(world: &World) {
    let lost = on_the_bus(world, 1).await;
    let in_record = world.queued(&world.destination().await).await;
    let lost_later = on_the_bus(world, 1).await;
    assert_eq!(requeue(world, after_all(world).await, 100).await, 2);
    assert_eq!(world.state(in_record.delivery_id).await, DeliveryState::Queued);
    for target in lost.iter().chain(&lost_later) {
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Waiting);
    }
    // It is the relay's; and the mark has not passed it.
    assert_eq!(world.store.relay(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(world.state(in_record.delivery_id).await, DeliveryState::Waiting);
}

async fn the_mark_does_not_pass_an_outbox_record(world: &World) {
    let destination = world.destination().await;
    let in_record = world.post_to(&[&destination], Start::Queued).await;
    on_the_bus(world, 2).await;
    assert_eq!(requeue(world, after_all(world).await, 100).await, 2);
    // The bus acknowledges it after all, and then loses it.
    let mut group = world.group(Vec::new()).await;
    group.published = vec![in_record.outbox_id];
    world.store.ingest(&group).await.unwrap();
    assert_eq!(requeue(world, after_all(world).await, 100).await, 1);
    assert_eq!(world.state(in_record.targets[0].delivery_id).await, DeliveryState::Waiting);
}

async fn what_came_later_is_not_lost(world: &World) {
    let targets = on_the_bus(world, 2).await;
    let first = targets[0].event_id.created_at();
    assert_eq!(requeue(world, first, 100).await, 0);
    for target in &targets {
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Queued);
    }
    // Nor has it been passed: it is found when its time has come.
    assert_eq!(requeue(world, after_all(world).await, 100).await, 2);
}

async fn the_reconciler_goes_on_where_it_stopped(world: &World) {
    let targets = on_the_bus(world, 7).await;
    let until = after_all(world).await;
    let (first, at_end) = world.store.requeue_lost(until, 3).await.unwrap();
    assert_eq!((first, at_end), (3, false));
    assert_eq!(requeue(world, until, 3).await, 4);
    for target in &targets {
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Waiting);
    }
    let later = on_the_bus(world, 2).await;
    assert_eq!(requeue(world, after_all(world).await, 3).await, 2);
    assert_eq!(world.state(later[1].delivery_id).await, DeliveryState::Waiting);
}

/// Sweeps until there is nothing to do; how much there was.
async fn sweep(world: &World) -> usize {
    let mut swept = 0;
    for _ in 0..1000 {
        match world.store.sweep_deleted(100).await.unwrap() {
            0 => return swept,
            step => swept += step,
        }
    }
    panic!("the sweep does not come to an end");
}

async fn a_deleted_destination_is_swept(world: &World) {
    let (gone, stays) = (world.destination().await, world.destination().await);
    let waits = world.waiting(&gone).await;
    let retries = world.queued(&gone).await;
    world.write(failed(retries, 1, HOUR)).await;
    let on_its_way = world.queued(&gone).await;
    let untouched = world.waiting(&stays).await;
    assert_eq!(sweep(world).await, 0);
    world.store.delete_destination(TENANT, gone.id).await.unwrap();
    assert_eq!(world.take_all().await.len(), 1, "only of the one that stays");
    assert_eq!(sweep(world).await, 2);
    for target in [waits, retries] {
        assert_eq!(world.state(target.delivery_id).await, DeliveryState::Cancelled);
    }
    // What is on the bus comes to a dispatcher, which must still see that the destination is deleted.
    assert_eq!(world.state(on_its_way.delivery_id).await, DeliveryState::Queued);
    assert_eq!(world.store.destinations(&[gone.id]).await.unwrap()[0].state, DestinationState::Deleted);
    assert_eq!(world.write(DeliveryWrite::End { target: on_its_way, dead: None }).await, Written::Done);
    assert_eq!(sweep(world).await, 1);
    assert_eq!(world.store.destinations(&[gone.id]).await.unwrap(), []);
    assert_eq!(world.state(untouched.delivery_id).await, DeliveryState::Waiting);
    assert!(world.store.destination(TENANT, stays.id).await.unwrap().is_some());
}

async fn a_deleted_destination_leaves_no_queue_on_trial(world: &World) {
    let destination = world.destination().await;
    let hold =
        crate::dispatch::QueueHold { destination_id: destination.id, hold: HOUR, trial: std::num::NonZeroU32::new(1) };
    world.store.hold_queues(&[hold]).await.unwrap();
    assert_eq!(world.store.spilled().await.unwrap(), [destination.id]);
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    assert_eq!(sweep(world).await, 1);
    assert_eq!(world.store.spilled().await.unwrap(), []);
    assert_eq!(world.store.sample().await.unwrap().spilled, 0);
}

async fn a_request_that_is_out_is_not_swept(world: &World) {
    let destination = world.destination().await;
    let out = world.queued(&destination).await;
    world.write(detach(out, 1, HOUR)).await;
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    assert_eq!(sweep(world).await, 0);
    assert_eq!(world.write(delivered(out, 1)).await, Written::Done);
    assert_eq!(sweep(world).await, 1);
}

async fn sweeping_is_bounded(world: &World) {
    let destination = world.destination().await;
    for _ in 0..5 {
        let target = world.queued(&destination).await;
        world.write(park(target, WaitReason::Paused, HOUR, true)).await;
    }
    world.store.delete_destination(TENANT, destination.id).await.unwrap();
    assert_eq!(world.store.sweep_deleted(2).await.unwrap(), 2);
    assert_eq!(world.store.sample().await.unwrap().waiting, 3);
    assert_eq!(sweep(world).await, 4, "three deliveries and the destination");
    assert_eq!(world.store.sample().await.unwrap().queues, 0);
}
