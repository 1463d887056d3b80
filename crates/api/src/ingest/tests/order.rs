//! The order of one request's units that take places in lanes, whatever becomes of them.

use signalpost_core::LaneId;

use super::*;

/// One that takes a place in a lane.
fn ordered(event_type: &str) -> Submission {
    let mut submission = submission(event_type);
    submission.unit.events[0].deliveries[0].lane = Some(LaneId::of("k"));
    submission
}

fn told(outcomes: &[Result<UnitOutcome, StoreError>]) -> String {
    let name = |outcome: &Result<UnitOutcome, StoreError>| match outcome {
        Ok(UnitOutcome::Committed(_)) => "committed",
        Ok(UnitOutcome::Rerouted) => "rerouted",
        Ok(UnitOutcome::Replayed(_) | UnitOutcome::Mismatch) => "replayed",
        Err(StoreError::Data(_)) => "refused",
        Err(_) => "unknown",
    };
    outcomes.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Two deliveries to a group, so that a request of some units needs some groups.
fn small() -> IngestSettings {
    IngestSettings { group_deliveries: 2, ..IngestSettings::default() }
}

#[tokio::test]
async fn nothing_of_a_lane_overtakes_what_is_routed_again() {
    let rig = rig(MANY, small());
    rig.store.moves_at.store(2, Ordering::SeqCst);
    let request = ["a", "b", "c", "d", "e", "f", "g"].map(ordered).into();
    let outcomes = rig.ingest.submit_all(request).await.unwrap();
    assert_eq!(told(&outcomes), "committed committed rerouted rerouted rerouted rerouted rerouted");
    assert_eq!(rig.store.order(), "a b");
    assert_eq!(rig.store.entered.load(Ordering::SeqCst), 2, "those behind are not tried in vain");
    // One that was routed by the new routes meanwhile, of another request, is not behind them.
    let mut later = ordered("h");
    later.unit.routing_version = 1;
    assert!(rig.ingest.submit(later).await.is_ok());
}

#[tokio::test]
async fn nothing_of_a_lane_overtakes_what_is_unknown() {
    let rig = rig(MANY, small());
    rig.store.fails_at.store(2, Ordering::SeqCst);
    let request = vec![ordered("a"), ordered("b"), ordered("c"), submission("d"), ordered("e"), submission("f")];
    let outcomes = rig.ingest.submit_all(request).await.unwrap();
    assert_eq!(told(&outcomes), "committed committed unknown unknown unknown committed");
    assert_eq!(rig.store.order(), "a b f", "what has no place in a lane is not held");
}

#[tokio::test]
async fn nothing_of_a_lane_overtakes_what_shares_a_claim_with_another() {
    let rig = rig(0, IngestSettings::default());
    // The first is refused, which tells nothing about the second, which has its uid.
    let mut refused = with_uid("u", 1);
    let new = &mut refused.unit.events[0];
    new.event = Arc::new(Event { event_type: "refused".to_owned(), ..(*new.event).clone() });
    let mut first = with_uid("u", 1);
    first.unit.events[0].deliveries[0].lane = Some(LaneId::of("k"));
    let request = vec![first, ordered("b"), submission("free"), ordered("c")];
    let blocker = rig.ingest.submit(submission("blocker"));
    let outcomes = async {
        let (outcomes, other) = tokio::join!(rig.ingest.submit_all(request), async {
            rig.store.turns.add_permits(MANY);
        });
        let () = other;
        outcomes.unwrap()
    };
    let (blocker, other, outcomes) = tokio::join!(blocker, rig.ingest.submit(refused), outcomes);
    assert!(blocker.is_ok());
    assert!(matches!(other, Err(IngestError::Store(StoreError::Data(_)))), "{other:?}");
    assert_eq!(told(&outcomes), "committed committed committed committed");
    assert_eq!(rig.store.order(), "blocker free a b c");
}

#[tokio::test]
async fn what_is_refused_for_good_lets_the_rest_of_its_request_go_in_order() {
    let rig = rig(MANY, IngestSettings::default());
    let request = ["a", "refused", "b", "c", "refused", "d"].map(ordered).into();
    let outcomes = rig.ingest.submit_all(request).await.unwrap();
    assert_eq!(told(&outcomes), "committed refused committed committed refused committed");
    assert_eq!(rig.store.order(), "a b c d");
}

#[tokio::test]
async fn nothing_follows_an_unknown_half_of_a_group_that_was_split() {
    let rig = rig(MANY, IngestSettings::default());
    // The whole is refused, then nothing is known of its first half.
    rig.store.fails_at.store(2, Ordering::SeqCst);
    let request = ["a", "b", "c", "refused"].map(ordered).into();
    let outcomes = rig.ingest.submit_all(request).await.unwrap();
    assert_eq!(told(&outcomes), "unknown unknown unknown unknown");
    assert_eq!(rig.store.order(), "");
}
