//! Deliveries of a lane: one after the other, and only while they are leased.

use std::time::Duration;

use signalpost_bus::{Message, Origin};
use signalpost_core::{DeliveryState, Guarantee, LaneId, WaitReason};
use signalpost_store::{
    HANDOVER_LEASE,
    dispatch::{DeliveryWrite, Next, Standing},
    schedule::DueDelivery,
};

use super::harness::{Harness, always, ms};
use crate::{
    Settings,
    fakes::{START, delivery_id, destination, message, standing, status},
};

/// The head of a lane, fed.
fn fed(delivery: u32, destination: u8) -> Message {
    let mut fed = message(delivery, destination);
    fed.lane = Some(LaneId::of("a"));
    fed.origin = Origin::Feed { leased_until: START + ms(60_000) };
    fed
}

/// As the store sees it.
fn leased(left: Duration) -> Standing {
    Standing {
        waiting: Some((START + ms(60_000), WaitReason::Turn)),
        lease_left: Some(left),
        lane: Some(LaneId::of("a")),
        ..standing(DeliveryState::Waiting, 0)
    }
}

fn due(delivery: u32, destination: u8) -> DueDelivery {
    let message = message(delivery, destination);
    DueDelivery {
        delivery_id: message.delivery_id,
        tenant_id: message.tenant_id,
        destination_id: message.destination_id,
        destination_version: 1,
        attempts: 0,
        reason: WaitReason::Turn,
        lane: Some(LaneId::of("a")),
        guarantee: Guarantee::AtLeastOnce,
        born_at: None,
        leased_until: START + ms(10_000) + Duration::from_millis(u64::from(delivery)),
        event: message.event,
        whole: true,
    }
}

impl Harness {
    /// Feeds the head of a lane, with so much left of its lease.
    fn feed(&self, delivery: u32, destination: u8, left: Duration) {
        self.store.state().standings.insert(delivery_id(delivery), leased(left));
        self.bus.send(fed(delivery, destination));
    }

    /// The end of one hands the other over.
    fn then(&self, delivery: u32, next: u32, destination: u8) {
        self.store.state().followers.insert(delivery_id(delivery), due(next, destination));
    }

    fn sent(&self) -> Vec<(Duration, signalpost_core::DeliveryId)> {
        self.exchanger.started().iter().map(|started| (started.at, started.delivery_id)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_is_handed_over_by_the_end_of_the_one_before() {
    let it = Harness::start([destination(1)], always(ms(100), status(200)));
    it.feed(1, 1, ms(60_000));
    for delivery in 1..20 {
        it.then(delivery, delivery + 1, 1);
    }
    it.until("all", |it| it.store.of(20).len() == 1).await;
    let sent = it.sent();
    assert_eq!(sent.iter().map(|(_, id)| *id).collect::<Vec<_>>(), (1..=20).map(delivery_id).collect::<Vec<_>>());
    assert!(sent.windows(2).all(|pair| pair[1].0 >= pair[0].0 + ms(100)), "{sent:?}");
    it.until_all_done().await;
    it.drain().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_written_names_the_lease_under_which_it_was_sent() {
    let it = Harness::start([destination(1)], always(ms(2000), status(200)));
    it.feed(1, 1, ms(60_000));
    it.then(1, 2, 1);
    it.until("both", |it| it.store.of(2).len() == 2).await;
    let leases = |delivery| it.store.of(delivery).iter().map(|write| write.target().lease).collect::<Vec<_>>();
    let taken_over = leases(1)[0];
    assert!(
        taken_over.is_some_and(|mark| mark >= START + HANDOVER_LEASE && mark < START + HANDOVER_LEASE + ms(1000)),
        "that of the dispatcher, not that of the feed: {taken_over:?}"
    );
    assert_eq!(leases(1), [taken_over; 2]);
    assert_eq!(leases(2), [Some(due(2, 1).leased_until); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_gone_or_was_taken_over_begins_nothing() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().taken_over.insert((delivery_id(1), START + ms(60_000)));
    it.feed(1, 1, ms(60_000));
    let mut other = leased(ms(60_000));
    other.lease_left = None;
    it.store.state().standings.insert(delivery_id(2), other);
    it.bus.send(fed(2, 1));
    it.until_all_done().await;
    tokio::time::sleep(ms(1000)).await;
    assert_eq!(it.sent(), []);
    assert_eq!((it.store.of(1), it.store.of(2)), (vec![], vec![]), "the store brings them back by itself");
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_which_little_is_left_begins_nothing() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().taking_over = ms(7100);
    it.feed(1, 1, ms(60_000));
    it.until_all_done().await;
    tokio::time::sleep(ms(5000)).await;
    assert_eq!(it.sent(), []);
    assert_eq!(it.store.of(1), []);
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_whose_answer_is_lost_is_left_to_the_store() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.feed(1, 1, ms(60_000));
    it.then(1, 2, 1);
    it.store.state().answers_lost = 1;
    it.until_all_done().await;
    tokio::time::sleep(ms(5000)).await;
    assert_eq!(it.sent().len(), 1);
    assert_eq!(it.store.of(1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_detached_is_given_up_before_its_lease_ends() {
    let it = Harness::start([destination(1)], always(ms(14_000), status(200)));
    it.feed(1, 1, ms(60_000));
    it.until("it is out", |it| !it.exchanger.started().is_empty()).await;
    it.store.state().is_away = true;
    tokio::time::sleep(ms(9600)).await;
    it.store.state().is_away = false;
    it.until_all_done().await;
    tokio::time::sleep(ms(15_000)).await;
    assert_eq!(it.store.of(1), [], "whatever came of it, it is somebody else's by now");
    assert_eq!(it.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_is_detached_and_may_outlast_its_lease() {
    let it = Harness::start([destination(1)], always(ms(10_000), status(200)));
    it.feed(1, 1, ms(6000));
    it.until("its end", |it| it.store.of(1).len() == 2).await;
    let writes = it.store.of(1);
    assert!(
        matches!(writes[..], [DeliveryWrite::Detach { .. }, DeliveryWrite::Attempt { next: Next::Delivered, .. }]),
        "{writes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_nothing_over_and_gives_back_what_it_has() {
    let mut narrow = destination(1);
    narrow.spec.max_in_flight = std::num::NonZeroU32::MIN;
    let it = Harness::start([narrow, destination(2)], always(ms(1000), status(200)));
    it.feed(1, 2, ms(60_000));
    // It waits behind another.
    it.then(1, 2, 1);
    it.feed(5, 2, ms(60_000));
    it.then(5, 6, 2);
    tokio::time::sleep(ms(500)).await;
    it.bus.send(message(8, 1));
    it.until("the first ended", |it| it.store.of(1).iter().any(|w| matches!(w, DeliveryWrite::Attempt { .. }))).await;
    let store = it.store.clone();
    it.then(6, 7, 2);
    tokio::time::sleep(ms(20)).await;
    it.drain().await.unwrap();
    let parked = store.of(2);
    let [DeliveryWrite::Park { reason: WaitReason::Turn, after, hold_queue: false, .. }] = parked[..] else {
        panic!("{parked:?}")
    };
    assert_eq!(after, Duration::ZERO);
    assert!(store.of(6).iter().any(|write| matches!(write, DeliveryWrite::Attempt { next: Next::Delivered, .. })));
    assert!(store.state().followers.contains_key(&delivery_id(6)), "the next is the store's");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_came_again_takes_the_place_of_one_that_was_old() {
    let settings = Settings::default();
    let it = Harness::with([destination(1)], always(ms(1), status(200)), settings, None);
    let lease = START + ms(60_000);
    let known = Standing { waiting: Some((lease, WaitReason::Turn)), ..standing(DeliveryState::Waiting, 0) };
    it.store.state().standings.insert(delivery_id(1), known);
    for leased_until in [START + ms(1000), lease] {
        let mut fed = message(1, 1);
        fed.origin = Origin::Feed { leased_until };
        it.bus.send(fed);
    }
    it.until_all_done().await;
    assert_eq!(it.sent().len(), 1);
    assert!(matches!(it.store.of(1)[..], [DeliveryWrite::Attempt { next: Next::Delivered, .. }]));
}
