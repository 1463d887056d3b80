//! Replay jobs.

use std::{collections::BTreeSet, time::Duration};

use signalpost_core::{
    DeadReason, DeliveryId, DeliveryStatus, Destination, DestinationId, EventId, Timestamp, pattern::EventPattern,
};

use super::world::{TENANT, World};
use crate::{
    dispatch::DeliveryWrite,
    ingest::Start,
    manage::{DestinationUpdate, ReplaySelection, ReplayState},
    read::DeliveryFilter,
    schedule::OpenReplay,
};

super::cases![
    a_job_sends_the_dead_again,
    what_was_replayed_is_not_matched_again,
    a_job_selects_by_status,
    a_job_selects_by_type,
    a_job_selects_by_time_of_acceptance,
    discarded_ones_and_deleted_destinations_are_not_matched,
    missing_events_are_sent_for_the_first_time,
    a_dry_run_counts_up_to_a_limit,
    a_job_counts_before_it_creates,
    a_job_keeps_what_it_was_asked_for,
    a_cancelled_job_stops,
    an_open_job_is_listed_until_it_ends,
    two_processes_work_on_a_job_once,
    a_rate_is_that_of_all_processes,
    a_job_with_a_rate_comes_to_its_end,
    a_job_does_not_meet_its_own_creations,
    what_is_no_job_takes_no_step,
];

fn of(destination: &Destination) -> ReplaySelection {
    ReplaySelection { destination_id: Some(destination.id), ..ReplaySelection::default() }
}

async fn deaths(world: &World, destination: &Destination, count: usize) -> Vec<DeliveryId> {
    let mut dead = Vec::new();
    for _ in 0..count {
        dead.push(world.dead(destination).await.delivery_id);
    }
    dead
}

async fn a_job_sends_the_dead_again(world: &World) {
    let (destination, other) = (world.destination().await, world.destination().await);
    let dead = deaths(world, &destination, 7).await;
    deaths(world, &other, 2).await;
    let arrived = world.queued(&destination).await;
    world.deliver(arrived).await;
    world.queued(&destination).await;
    let job = world.run_job(&world.new_job(TENANT, of(&destination)).await, 3).await;
    assert_eq!((job.matched, job.replayed), (Some(7), 7));
    let due = world.take_all().await;
    assert_eq!(due.len(), 7);
    let mut replayed = BTreeSet::new();
    for due in due {
        assert_eq!(due.destination_id, destination.id);
        replayed.extend(world.store.delivery(TENANT, due.delivery_id).await.unwrap().unwrap().replay_of);
    }
    assert_eq!(replayed, dead.into_iter().collect());
    assert_eq!(world.store.sample().await.unwrap().dead_letters, 2);
}

async fn what_was_replayed_is_not_matched_again(world: &World) {
    let destination = world.destination().await;
    let dead = deaths(world, &destination, 3).await;
    world.store.replay_dead_letter(TENANT, dead[0]).await.unwrap();
    let first = world.run_job(&world.new_job(TENANT, of(&destination)).await, 10).await;
    assert_eq!(first.replayed, 2);
    let second = world.run_job(&world.new_job(TENANT, of(&destination)).await, 10).await;
    assert_eq!((second.matched, second.replayed), (Some(0), 0));
}

async fn a_job_selects_by_status(world: &World) {
    let destination = world.destination().await;
    let delivered = world.queued(&destination).await;
    world.deliver(delivered).await;
    let dead = world.dead(&destination).await;
    let cancelled = world.queued(&destination).await;
    world.write(DeliveryWrite::End { target: cancelled, dead: None }).await;
    world.waiting(&destination).await;
    let count = async |statuses: &[DeliveryStatus]| {
        let selection = ReplaySelection { statuses: statuses.to_vec(), ..of(&destination) };
        world.store.count_replay(TENANT, &selection, 100).await.unwrap()
    };
    assert_eq!(count(&[]).await, 1, "the dead by default");
    assert_eq!(count(&[DeliveryStatus::Delivered]).await, 1);
    assert_eq!(count(&[DeliveryStatus::Dead, DeliveryStatus::Cancelled]).await, 2);
    assert_eq!(count(&[DeliveryStatus::Pending, DeliveryStatus::Retrying]).await, 0, "only what ended");
    let selection = ReplaySelection { statuses: DeliveryStatus::ALL.to_vec(), ..of(&destination) };
    assert_eq!(world.run_job(&world.new_job(TENANT, selection).await, 10).await.replayed, 3);
    for target in [delivered, dead, cancelled] {
        let view = world.store.delivery(TENANT, target.delivery_id).await.unwrap().unwrap();
        assert!(view.replayed_by.is_some());
    }
}

async fn a_job_selects_by_type(world: &World) {
    let destination = world.destination().await;
    for event_type in ["order.created", "order.paid", "user.created"] {
        let mut event = world.event(TENANT).await;
        event.event_type = event_type.into();
        let posted = world.post_event(event, &[&destination], Start::Queued).await;
        world.kill(posted.targets[0]).await;
    }
    for (patterns, expected) in
        [(vec!["order.*"], 2), (vec!["user.created"], 1), (vec!["**.created", "order.paid"], 3), (vec!["x"], 0)]
    {
        let event_types = patterns.iter().map(|pattern| EventPattern::new(*pattern).unwrap()).collect();
        let selection = ReplaySelection { event_types, ..of(&destination) };
        assert_eq!(world.store.count_replay(TENANT, &selection, 100).await.unwrap(), expected, "{patterns:?}");
    }
    let selection = ReplaySelection { event_types: vec![EventPattern::new("order.*").unwrap()], ..of(&destination) };
    assert_eq!(world.run_job(&world.new_job(TENANT, selection).await, 1).await.replayed, 2);
}

async fn a_job_selects_by_time_of_acceptance(world: &World) {
    let destination = world.destination().await;
    let now = world.now().await;
    let mut times = Vec::new();
    for age in [30, 20, 10] {
        let at = Timestamp::from_millis(now.as_millis() - age);
        let posted = world.post_event(world.event_at(TENANT, at), &[&destination], Start::Queued).await;
        world.kill(posted.targets[0]).await;
        times.push(at);
    }
    let count = async |since: Option<Timestamp>, until: Option<Timestamp>| {
        let selection = ReplaySelection { since, until, ..ReplaySelection::default() };
        world.store.count_replay(TENANT, &selection, 100).await.unwrap()
    };
    assert_eq!(count(Some(times[0]), None).await, 3, "from then on");
    assert_eq!(count(Some(times[0] + Duration::from_micros(1)), None).await, 2);
    assert_eq!(count(Some(times[1]), Some(times[2])).await, 1, "but not from that one on");
    assert_eq!(count(Some(times[1]), Some(times[2] + Duration::from_micros(1))).await, 2);
    let selection = ReplaySelection { since: Some(times[1]), ..ReplaySelection::default() };
    assert_eq!(world.run_job(&world.new_job(TENANT, selection).await, 10).await.replayed, 2);
}

async fn discarded_ones_and_deleted_destinations_are_not_matched(world: &World) {
    let (destination, gone) = (world.destination().await, world.destination().await);
    let dead = deaths(world, &destination, 2).await;
    deaths(world, &gone, 2).await;
    world.store.discard_dead_letter(TENANT, dead[0]).await.unwrap();
    world.store.delete_destination(TENANT, gone.id).await.unwrap();
    let all = ReplaySelection { since: Some(Timestamp::default()), ..ReplaySelection::default() };
    let job = world.run_job(&world.new_job(TENANT, all).await, 10).await;
    assert_eq!((job.matched, job.replayed), (Some(1), 1));
    let discarded = world.store.delivery(TENANT, dead[0]).await.unwrap().unwrap();
    assert_eq!((discarded.reason, discarded.replayed_by), (Some(DeadReason::Discarded), None));
}

async fn missing_events_are_sent_for_the_first_time(world: &World) {
    let (destination, other) = (world.destination().await, world.destination().await);
    let update = |patterns: &[&str]| {
        let mut spec = destination.spec.clone();
        spec.event_types = patterns.iter().map(|pattern| EventPattern::new(*pattern).unwrap()).collect();
        spec
    };
    let mut posted: Vec<(EventId, &str)> = Vec::new();
    for (event_type, to) in
        [("order.created", None), ("order.paid", None), ("user.created", None), ("order.x", Some(&destination))]
    {
        let mut event = world.event(TENANT).await;
        event.event_type = event_type.into();
        let to: Vec<_> = to.into_iter().chain([&other]).collect();
        posted.push((world.post_event(event, &to, Start::Queued).await.event.id, event_type));
    }
    // One that was meant for another destination alone.
    let mut meant = world.event(TENANT).await;
    meant.event_type = "order.meant".into();
    meant.meta.destination_id = Some(other.id);
    world.post_event(meant, &[&other], Start::Queued).await;
    let spec = update(&["order.*"]);
    let change = DestinationUpdate { spec: &spec, secrets: &destination.secrets };
    world.store.update_destination(TENANT, destination.id, 1, change).await.unwrap().unwrap();
    let selection = ReplaySelection { missing: true, ..of(&destination) };
    assert_eq!(world.store.count_replay(TENANT, &of(&destination), 100).await.unwrap(), 0);
    assert_eq!(world.store.count_replay(TENANT, &selection, 100).await.unwrap(), 2);
    let job = world.run_job(&world.new_job(TENANT, selection.clone()).await, 1).await;
    assert_eq!((job.matched, job.replayed), (Some(2), 2));
    let sent: BTreeSet<EventId> = world.take_all().await.into_iter().map(|due| due.event.id).collect();
    assert_eq!(sent, BTreeSet::from([posted[0].0, posted[1].0]));
    assert_eq!(world.run_job(&world.new_job(TENANT, selection).await, 10).await.replayed, 0, "once");
}

async fn a_dry_run_counts_up_to_a_limit(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 5).await;
    for (most, expected) in [(100, 5), (5, 5), (3, 3), (0, 0)] {
        assert_eq!(world.store.count_replay(TENANT, &of(&destination), most).await.unwrap(), expected);
    }
    assert!(world.take_all().await.is_empty());
    assert_eq!(world.store.open_replays().await.unwrap(), []);
}

async fn a_job_counts_before_it_creates(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 3).await;
    let job = world.new_job(TENANT, of(&destination)).await;
    world.store.create_replay(&job).await.unwrap();
    let present = async || world.store.replay(TENANT, job.id).await.unwrap().unwrap();
    assert_eq!((present().await.matched, present().await.state), (None, ReplayState::Running));
    assert_eq!(world.store.step_replay(job.id, 2).await.unwrap(), (0, true));
    assert_eq!((present().await.matched, present().await.replayed), (Some(3), 0));
    assert_eq!(world.store.step_replay(job.id, 2).await.unwrap(), (2, true));
    assert_eq!((present().await.matched, present().await.replayed), (Some(3), 2));
}

async fn a_job_keeps_what_it_was_asked_for(world: &World) {
    let destination = world.destination().await;
    let selection = ReplaySelection {
        destination_id: Some(destination.id),
        statuses: vec![DeliveryStatus::Dead, DeliveryStatus::Delivered],
        event_types: vec![EventPattern::new("order.**").unwrap()],
        since: Some(Timestamp::from_micros(1_600_000_000_123_456)),
        until: Some(Timestamp::from_micros(1_900_000_000_654_321)),
        missing: true,
    };
    let mut job = world.new_job(TENANT, selection).await;
    job.rate_per_second = Some(0.25);
    world.store.create_replay(&job).await.unwrap();
    let kept = world.store.replay(TENANT, job.id).await.unwrap();
    assert_eq!(kept, Some(job.clone()));
    world.store.create_replay(&job).await.unwrap();
    assert_eq!(world.store.replay(TENANT, job.id).await.unwrap(), kept, "creating it again changes nothing");
    let open = [OpenReplay { id: job.id, tenant_id: TENANT, rate_per_second: Some(0.25) }];
    assert_eq!(world.store.open_replays().await.unwrap(), open);
}

async fn a_cancelled_job_stops(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 5).await;
    let job = world.new_job(TENANT, of(&destination)).await;
    world.store.create_replay(&job).await.unwrap();
    world.store.step_replay(job.id, 2).await.unwrap();
    assert_eq!(world.store.step_replay(job.id, 2).await.unwrap(), (2, true));
    let cancelled = world.store.cancel_replay(TENANT, job.id).await.unwrap().unwrap();
    assert_eq!((cancelled.state, cancelled.replayed), (ReplayState::Cancelled, 2));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(world.store.step_replay(job.id, 2).await.unwrap(), (0, false));
    assert_eq!(world.store.cancel_replay(TENANT, job.id).await.unwrap(), Some(cancelled));
    assert_eq!(world.take_all().await.len(), 2, "what it created stays");
    let unknown = world.new_job(TENANT, of(&destination)).await.id;
    assert_eq!(world.store.cancel_replay(TENANT, unknown).await.unwrap(), None);
    let done = world.run_job(&world.new_job(TENANT, of(&destination)).await, 10).await;
    assert_eq!(world.store.cancel_replay(TENANT, done.id).await.unwrap(), Some(done), "a finished one stays so");
}

async fn an_open_job_is_listed_until_it_ends(world: &World) {
    let (one, other) = (
        world.new_job(TENANT, of(&world.destination().await)).await,
        world.new_job(TENANT, of(&world.destination().await)).await,
    );
    for job in [&one, &other] {
        world.store.create_replay(job).await.unwrap();
    }
    let open =
        async || world.store.open_replays().await.unwrap().into_iter().map(|job| job.id).collect::<BTreeSet<_>>();
    assert_eq!(open().await, BTreeSet::from([one.id, other.id]));
    world.store.cancel_replay(TENANT, one.id).await.unwrap();
    world.run_job(&other, 10).await;
    assert_eq!(open().await, BTreeSet::new());
}

async fn two_processes_work_on_a_job_once(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 20).await;
    let job = world.new_job(TENANT, of(&destination)).await;
    world.store.create_replay(&job).await.unwrap();
    let elsewhere = world.database.handle().await;
    let finished = super::world::eventually("the job ends", async || {
        let both = tokio::join!(world.store.step_replay(job.id, 3), elsewhere.step_replay(job.id, 3));
        both.0.unwrap();
        both.1.unwrap();
        let present = world.store.replay(TENANT, job.id).await.unwrap().unwrap();
        (present.state == ReplayState::Completed).then_some(present)
    })
    .await;
    assert_eq!((finished.matched, finished.replayed), (Some(20), 20));
    assert_eq!(world.take_all().await.len(), 20);
}

async fn a_rate_is_that_of_all_processes(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 3).await;
    let mut job = world.new_job(TENANT, of(&destination)).await;
    job.rate_per_second = Some(0.001);
    world.store.create_replay(&job).await.unwrap();
    let elsewhere = world.database.handle().await;
    assert_eq!(elsewhere.step_replay(job.id, 10).await.unwrap(), (0, true), "counting is no matter of the rate");
    assert_eq!(world.store.step_replay(job.id, 10).await.unwrap(), (1, true), "one at once");
    for store in [&elsewhere, &world.store, &elsewhere] {
        assert_eq!(store.step_replay(job.id, 10).await.unwrap(), (0, true));
        assert_eq!(store.open_replays().await.unwrap(), [], "not before its time");
    }
    let present = world.store.replay(TENANT, job.id).await.unwrap().unwrap();
    assert_eq!((present.state, present.matched, present.replayed), (ReplayState::Running, Some(3), 1));
    assert_eq!(world.take_all().await.len(), 1);
}

async fn a_job_with_a_rate_comes_to_its_end(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 6).await;
    let mut job = world.new_job(TENANT, of(&destination)).await;
    job.rate_per_second = Some(50.0);
    world.store.create_replay(&job).await.unwrap();
    let elsewhere = world.database.handle().await;
    let finished = super::world::eventually("the job ends", async || {
        for store in [&world.store, &elsewhere] {
            if !store.open_replays().await.unwrap().is_empty() {
                store.step_replay(job.id, 10).await.unwrap();
            }
        }
        let present = world.store.replay(TENANT, job.id).await.unwrap().unwrap();
        (present.state == ReplayState::Completed).then_some(present)
    })
    .await;
    assert_eq!((finished.matched, finished.replayed), (Some(6), 6));
    assert_eq!(world.take_all().await.len(), 6);
}

async fn a_job_does_not_meet_its_own_creations(world: &World) {
    let destination = world.destination().await;
    deaths(world, &destination, 4).await;
    let job = world.new_job(TENANT, of(&destination)).await;
    world.store.create_replay(&job).await.unwrap();
    let mut created = 0;
    for _ in 0..50 {
        let (step, goes_on) = world.store.step_replay(job.id, 1).await.unwrap();
        created += step;
        // What it creates dies at once, in the middle of the job.
        for due in world.take_all().await {
            world.kill(target(&due)).await;
        }
        if !goes_on {
            break;
        }
    }
    assert_eq!(created, 4);
    let filter = DeliveryFilter { destination_id: Some(destination.id), ..DeliveryFilter::default() };
    let page = crate::read::Page { limit: 100, after: None, descending: false };
    assert_eq!(world.store.list_deliveries(TENANT, &filter, page).await.unwrap().len(), 8);
}

fn target(due: &crate::schedule::DueDelivery) -> crate::dispatch::Target {
    crate::dispatch::Target {
        delivery_id: due.delivery_id,
        tenant_id: due.tenant_id,
        destination_id: due.destination_id,
        event_id: due.event.id,
        lease: None,
    }
}

async fn what_is_no_job_takes_no_step(world: &World) {
    let unknown = world.new_job(TENANT, ReplaySelection::default()).await.id;
    assert_eq!(world.store.step_replay(unknown, 10).await.unwrap(), (0, false));
    let nowhere = DestinationId::new(world.now().await, world.entropy());
    let selection = ReplaySelection { destination_id: Some(nowhere), missing: true, ..ReplaySelection::default() };
    let job = world.run_job(&world.new_job(TENANT, selection).await, 10).await;
    assert_eq!((job.matched, job.replayed), (Some(0), 0));
}
