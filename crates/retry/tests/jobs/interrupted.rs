//! Attempts that a crash interrupted.

use std::time::Duration;

use signalpost_core::{AttemptOutcome, DeadReason, DestinationState, Guarantee};
use signalpost_retry::Settings;
use signalpost_store::{
    dispatch::{DeliveryWrite, Next},
    schedule::DueDelivery,
};

use crate::fakes::{Fake, START, destination, detached, due};

const SECOND: Duration = Duration::from_secs(1);

fn attempt(write: &DeliveryWrite) -> (u32, Next) {
    match write {
        DeliveryWrite::Attempt { attempt, next, .. } => {
            assert_eq!(attempt.outcome, AttemptOutcome::Interrupted);
            assert!(attempt.status_code.is_none() && attempt.error.is_some());
            assert_eq!(attempt.started_at, START, "when it was noticed, by the store's clock");
            (attempt.number, *next)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_recorded_before_the_next_and_not_published() {
    let fake = Fake::new();
    {
        let mut state = fake.state();
        state.destinations = vec![
            destination(1, 4, DestinationState::Active),
            destination(2, 4, DestinationState::Active),
            destination(3, 4, DestinationState::Deleted),
        ];
        let deliveries =
            [detached(0, 1, 2), detached(1, 2, 0), detached(2, 1, 3), detached(3, 3, 1), detached(4, 4, 1)];
        state.due = deliveries.into_iter().chain([due(5, 1)]).map(|delivery| (Duration::ZERO, delivery)).collect();
    }
    fake.run_for(Settings::default(), SECOND).await;

    let writes = fake.state().writes.clone();
    assert_eq!(writes.len(), 5);
    assert_eq!(attempt(&writes[0]), (3, Next::Retry { after: Duration::ZERO }));
    assert_eq!(attempt(&writes[1]), (1, Next::Retry { after: Duration::ZERO }));
    assert_eq!(attempt(&writes[2]), (4, Next::Dead { reason: DeadReason::Exhausted }), "the policy makes four");
    for (write, gone) in writes[3..].iter().zip(["deleted", "removed"]) {
        assert!(matches!(write, DeliveryWrite::End { dead: None, .. }), "{gone}: {write:?}");
    }
    let loads = fake.calls("destinations");
    assert_eq!(loads.iter().map(|call| call.numbers[0]).collect::<Vec<_>>(), [4], "each destination once, all at once");
    assert_eq!(fake.calls("write").len(), 1);
    let published = fake.published();
    assert_eq!(published.iter().map(|m| m.delivery_id).collect::<Vec<_>>(), [due(5, 1).delivery_id]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_old_has_expired() {
    let fake = Fake::new();
    fake.state().destinations = vec![destination(1, 4, DestinationState::Active)];
    let settings = Settings { max_age: SECOND, ..Settings::default() };
    let old = DueDelivery {
        delivery_id: signalpost_core::DeliveryId::from_parts(START - 2 * SECOND, [1; 10]),
        ..detached(0, 1, 1)
    };
    fake.state().due = vec![(Duration::ZERO, old)];
    fake.run_for(settings, SECOND).await;
    assert_eq!(attempt(&fake.state().writes[0]), (2, Next::Dead { reason: DeadReason::Expired }));
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_as_old_as_itself() {
    let fake = Fake::new();
    fake.state().destinations = vec![destination(1, 4, DestinationState::Active)];
    let settings = Settings { max_age: SECOND, ..Settings::default() };
    let replay = DueDelivery {
        delivery_id: signalpost_core::DeliveryId::from_parts(START - 2 * SECOND, [1; 10]),
        born_at: Some(START),
        ..detached(0, 1, 1)
    };
    fake.state().due = vec![(Duration::ZERO, replay)];
    fake.run_for(settings, SECOND).await;
    assert_eq!(attempt(&fake.state().writes[0]), (2, Next::Retry { after: Duration::ZERO }));
}

#[tokio::test(start_paused = true)]
async fn at_most_once_its_outcome_stays_unknown() {
    let fake = Fake::new();
    fake.state().destinations = vec![destination(1, 4, DestinationState::Active)];
    let once = DueDelivery { guarantee: Guarantee::AtMostOnce, ..detached(0, 1, 0) };
    fake.state().due = vec![(Duration::ZERO, once)];
    fake.run_for(Settings::default(), SECOND).await;
    assert_eq!(attempt(&fake.state().writes[0]), (1, Next::Dead { reason: DeadReason::UnknownOutcome }));
    assert_eq!(fake.published().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_given_back_and_the_rest_is_published() {
    for failing in ["destinations", "write"] {
        let fake = Fake::new();
        fake.state().failures.insert(failing, 1);
        fake.state().destinations = vec![destination(1, 4, DestinationState::Active)];
        fake.state().due = vec![(Duration::ZERO, detached(0, 1, 1)), (Duration::ZERO, due(1, 1))];
        fake.run_for(Settings::default(), SECOND).await;
        let given_back = fake.state().given_back.clone();
        assert_eq!(given_back, [(detached(0, 1, 1).delivery_id, START + Settings::default().feed_lease)], "{failing}");
        assert_eq!(fake.published().len(), 1, "{failing}");
    }
}
