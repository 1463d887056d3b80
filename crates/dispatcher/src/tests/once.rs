//! At most once: claimed in the store before the first byte leaves.

use std::num::NonZeroU32;

use signalpost_bus::Message;
use signalpost_core::{DeadReason, Guarantee};
use signalpost_sender::Outgoing;
use signalpost_store::dispatch::{DeliveryWrite, Next};

use super::harness::{Harness, always, ms};
use crate::fakes::{delivery_id, destination, limited, message, status};

fn once(delivery: u32) -> Message {
    Message { guarantee: Guarantee::AtMostOnce, ..message(delivery, 1) }
}

#[tokio::test(start_paused = true)]
async fn it_is_claimed_then_sent_and_whatever_fails_has_failed() {
    let script = Box::new(|outgoing: &Outgoing<'_>| {
        (ms(3000), Some(status(if outgoing.delivery_id == delivery_id(1) { 200 } else { 503 })))
    });
    let it = Harness::start([destination(1)], script);
    it.bus.send(once(1));
    it.bus.send(once(2));
    it.until_all_done().await;
    assert!(it.elapsed() < ms(100), "its offset is released with the claim: {:?}", it.elapsed());
    it.until("both", |it| it.store.of(1).len() == 2 && it.store.of(2).len() == 2).await;
    let (first, second) = (it.store.of(1), it.store.of(2));
    let [DeliveryWrite::Claim { deadline, .. }, DeliveryWrite::Attempt { next: Next::Delivered, .. }] = first[..]
    else {
        panic!("{first:?}")
    };
    assert!(deadline >= ms(25_000), "so that it need not be detached later: {deadline:?}");
    let [DeliveryWrite::Claim { .. }, DeliveryWrite::Attempt { next, .. }] = &second[..] else { panic!("{second:?}") };
    assert_eq!(*next, Next::Dead { reason: DeadReason::FailedOnce });
}

#[tokio::test(start_paused = true)]
async fn what_another_claimed_is_dropped() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().claims.insert(delivery_id(1), 7);
    it.bus.send(once(1));
    it.until_all_done().await;
    assert_eq!((it.exchanger.started(), it.store.of(1)), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_still_ours() {
    let it = Harness::start([destination(1)], always(ms(1), status(200)));
    it.store.state().answers_lost = 1;
    it.bus.send(once(1));
    it.until("delivered", |it| matches!(it.store.of(1).last(), Some(DeliveryWrite::Attempt { .. }))).await;
    assert_eq!(it.exchanger.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn claims_never_run_ahead_of_slots() {
    let mut narrow = destination(1);
    narrow.spec.max_in_flight = NonZeroU32::MIN.saturating_add(1);
    let it = Harness::start([narrow], always(ms(10_000), status(200)));
    for delivery in 0..10 {
        it.bus.send(once(delivery));
    }
    tokio::time::sleep(ms(9000)).await;
    assert_eq!(it.store.state().claims.len(), 2);
    assert_eq!(it.exchanger.started().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_breaks_after_the_claim_leaves_the_rest_to_the_store() {
    let it = Harness::start([destination(1)], Box::new(|_: &Outgoing<'_>| (ms(1), None)));
    it.bus.send(once(1));
    it.until_all_done().await;
    tokio::time::sleep(ms(1000)).await;
    let writes = it.store.of(1);
    assert!(matches!(writes[..], [DeliveryWrite::Claim { .. }]), "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_long_to_claim_makes_no_burst() {
    let it = Harness::start([limited(1, 20.0)], always(ms(1), status(200)));
    it.bus.send(once(0));
    it.until_all_done().await;
    it.store.state().is_away = true;
    for delivery in 1..20 {
        it.bus.send(once(delivery));
    }
    tokio::time::sleep(ms(900)).await;
    it.store.state().is_away = false;
    it.until_all_done().await;
    tokio::time::sleep(ms(3000)).await;
    let times: Vec<_> = it.exchanger.started().iter().map(|started| started.at).collect();
    assert!(times.len() > 5, "{times:?}");
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= ms(45), "{times:?}");
    }
}
