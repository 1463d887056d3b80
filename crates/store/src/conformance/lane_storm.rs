//! Many clients end the first of lanes and add to the same lanes, at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use signalpost_core::{DeadReason, DeliveryId, Destination, DestinationId, LaneId, ordering::OnDead};

use super::{
    ordered::of,
    world::{TENANT, World, budget, delivered, died, failed, targets},
};
use crate::{
    Store,
    dispatch::{DeliveryWrite, Target, Written},
    ingest::Start,
    manage::Cancelled,
    schedule::DueDelivery,
};

super::cases![
    clients_that_end_and_add_keep_the_order,
    an_end_and_an_arrival_leave_no_lane_behind,
    blocks_and_replays_at_once_leave_no_lane_behind,
];

const LANES: usize = 5;
const POSTERS: usize = 3;
const EVENTS: usize = 40;

type Lane = (DestinationId, LaneId);

/// What all clients see together.
#[derive(Default)]
struct Seen {
    /// The one of a lane that somebody has.
    out: BTreeMap<Lane, DeliveryId>,
    ended: Vec<DeliveryId>,
    cancelled: BTreeSet<DeliveryId>,
}

impl Seen {
    fn begins(&mut self, due: &DueDelivery) {
        let lane = (due.destination_id, due.lane.expect("it is of a lane"));
        assert_eq!(self.out.insert(lane, due.delivery_id), None, "{} begins while another one is out", due.delivery_id);
    }

    fn rests(&mut self, due: &DueDelivery) {
        let lane = (due.destination_id, due.lane.expect("it is of a lane"));
        if self.out.get(&lane) == Some(&due.delivery_id) {
            self.out.remove(&lane);
        }
    }
}

/// Sends what it is given until nothing waits. What a delivery meets depends on its id and its attempts.
async fn send(store: Arc<dyn Store>, seen: Arc<Mutex<Seen>>, done: Arc<Mutex<usize>>) {
    let mut mine: Vec<DueDelivery> = Vec::new();
    loop {
        if mine.is_empty() {
            mine = store.take_due(budget(6, 3)).await.unwrap().deliveries;
            let leases: Vec<_> = mine.iter().map(|due| (due.delivery_id, due.leased_until)).collect();
            let mut taken = store.take_over(&leases).await.unwrap().into_iter();
            mine.retain(|_| taken.next().unwrap().is_some());
            let mut seen = seen.lock().unwrap();
            mine.iter().for_each(|due| seen.begins(due));
        }
        if mine.is_empty() {
            let posting = *done.lock().unwrap() < POSTERS;
            if !posting && store.sample().await.unwrap().waiting == 0 {
                return;
            }
            tokio::task::yield_now().await;
            continue;
        }
        let batch: Vec<DeliveryWrite> = mine.iter().map(outcome).collect();
        // Until here nobody else has one of these lanes.
        {
            let mut seen = seen.lock().unwrap();
            for (due, write) in mine.iter().zip(&batch) {
                seen.rests(due);
                if !matches!(write, DeliveryWrite::Attempt { next: crate::dispatch::Next::Retry { .. }, .. }) {
                    seen.ended.push(due.delivery_id);
                }
            }
        }
        let report = store.write(&batch, mine.len().is_multiple_of(2)).await.unwrap();
        {
            let mut seen = seen.lock().unwrap();
            for (due, written) in mine.iter().zip(report.written) {
                assert_eq!(written, Written::Done, "{due:?}");
            }
            report.followers.iter().for_each(|due| seen.begins(due));
        }
        mine = report.followers;
    }
}

fn outcome(due: &DueDelivery) -> DeliveryWrite {
    let number = due.attempts + 1;
    match (due.delivery_id.uuid().as_bytes()[15] % 4, due.attempts) {
        (0, 0) => failed(of(due), number, Duration::ZERO),
        (1, _) => died(of(due), number, DeadReason::Rejected),
        _ => delivered(of(due), number),
    }
}

async fn clients_that_end_and_add_keep_the_order(world: &World) {
    let mut destinations = vec![world.ordered(OnDead::Continue).await, world.ordered(OnDead::Continue).await];
    destinations.sort_by_key(|destination| destination.id);
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let done: Arc<Mutex<usize>> = Arc::default();
    let mut senders = Vec::new();
    for _ in 0..4 {
        let store = world.database.handle().await;
        senders.push(tokio::spawn(send(store, Arc::clone(&seen), Arc::clone(&done))));
    }
    let posts = (0..POSTERS).map(|poster| {
        let (destinations, seen, done) = (&destinations, &seen, &done);
        async move {
            let posted = post(world, destinations, poster, seen).await;
            *done.lock().unwrap() += 1;
            posted
        }
    });
    let posted = join_all(posts).await;
    for sender in senders {
        sender.await.unwrap();
    }
    let seen = seen.lock().unwrap();
    let places: BTreeMap<_, _> = seen.ended.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    assert_eq!(places.len(), seen.ended.len(), "each ends once");
    let mut all = 0;
    for lane in posted.into_iter().flatten().map(|(_, line)| line) {
        let line: Vec<_> = lane.iter().filter(|target| !seen.cancelled.contains(&target.delivery_id)).collect();
        let order: Vec<_> = line.iter().map(|target| places.get(&target.delivery_id)).collect();
        assert!(order.iter().all(Option::is_some), "all of them ended: {order:?}");
        assert!(order.is_sorted(), "what one client posted comes in its order: {order:?}");
        all += line.len();
    }
    assert!(all + seen.cancelled.len() >= POSTERS * EVENTS * 2);
}

/// Posts to all destinations, several lanes in one group; cancels one now and then. By destination and lane, in order.
async fn post(
    world: &World,
    destinations: &[Destination],
    poster: usize,
    seen: &Mutex<Seen>,
) -> BTreeMap<(DestinationId, usize), Vec<Target>> {
    let to: Vec<_> = destinations.iter().map(|destination| destination.id).collect();
    let mut lines: BTreeMap<_, Vec<Target>> = BTreeMap::new();
    for round in 0..EVENTS / 4 {
        let mut events = Vec::new();
        let mut born = Vec::new();
        for number in 0..4 {
            // In an order of its own: those who lock lanes as they come would meet each other.
            let lane = (round + number * (1 + poster)) % LANES;
            let new = world.new_keyed(&format!("lane {lane}"), &to, Start::Queued).await;
            born.extend(targets(&new).into_iter().map(|target| (lane, target)));
            events.push(new);
        }
        world.commit(events).await;
        for (lane, target) in born {
            lines.entry((target.destination_id, lane)).or_default().push(target);
            if target.delivery_id.uuid().as_bytes()[14].is_multiple_of(16)
                && world.store.cancel_delivery(TENANT, target.delivery_id).await.unwrap() == Cancelled::Yes
            {
                seen.lock().unwrap().cancelled.insert(target.delivery_id);
            }
        }
    }
    lines
}

/// The last of a lane ends while a new one arrives: whoever comes first, the new one is fed.
async fn an_end_and_an_arrival_leave_no_lane_behind(world: &World) {
    let destination = world.ordered(OnDead::Continue).await;
    let elsewhere = world.database.handle().await;
    for round in 0..40 {
        let key = format!("lane {}", round % 3);
        let first = world.in_lane(&destination, &key).await;
        assert_eq!(world.taken().await, [first.delivery_id]);
        let end = if round % 2 == 0 { delivered(first, 1) } else { died(first, 1, DeadReason::Rejected) };
        let batch = [end];
        let (report, next) = tokio::join!(elsewhere.write(&batch, round % 4 < 2), world.in_lane(&destination, &key));
        let mut handed: Vec<_> = report.unwrap().followers.iter().map(|due| due.delivery_id).collect();
        if handed.is_empty() {
            handed = world.taken().await;
        }
        assert_eq!(handed, [next.delivery_id], "round {round}");
        world.deliver(next).await;
    }
}

/// The first dies and blocks while others arrive; it is sent again or discarded while the next arrive.
async fn blocks_and_replays_at_once_leave_no_lane_behind(world: &World) {
    let destination = world.ordered(OnDead::Block).await;
    let elsewhere = world.database.handle().await;
    for round in 0..30 {
        let first = world.in_lane(&destination, "a").await;
        let batch = [died(first, 1, DeadReason::Rejected)];
        let (written, second) = tokio::join!(elsewhere.write(&batch, false), world.in_lane(&destination, "a"));
        assert_eq!(written.unwrap().written, [Written::Done]);
        assert!(world.follows(second).await, "round {round}");
        let replay = async {
            match round % 2 {
                0 => drop(elsewhere.replay_dead_letter(TENANT, first.delivery_id).await.unwrap()),
                _ => drop(elsewhere.discard_dead_letter(TENANT, first.delivery_id).await.unwrap()),
            }
        };
        let ((), third) = tokio::join!(replay, world.in_lane(&destination, "a"));
        let mut expected = Vec::new();
        expected.extend(world.store.delivery(TENANT, first.delivery_id).await.unwrap().unwrap().replayed_by);
        assert_eq!(expected.len(), (round + 1) % 2);
        expected.extend([second.delivery_id, third.delivery_id]);
        assert_eq!(world.drain().await, expected, "round {round}");
    }
}
