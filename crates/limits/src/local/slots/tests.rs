use proptest::prelude::*;
use signalpost_core::Timestamp;

use super::*;

fn id(number: u64) -> DestinationId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    DestinationId::from_parts(Timestamp::from_millis(1), random)
}

fn used(max: u32, held: u32, wanted: u32) -> SlotUse {
    SlotUse { destination_id: id(0), max, held, wanted }
}

const START: Duration = Duration::from_secs(100);

#[test]
fn one_owner_has_all_that_it_needs() {
    let mut table = SlotTable::default();
    assert_eq!(table.tell(START, 1, &used(10, 0, 4)), 4);
    assert_eq!(table.tell(START, 1, &used(10, 4, 20)), 10);
    assert_eq!(table.tell(START, 1, &used(10, 2, 0)), 2);
    assert_eq!(table.tell(START, 1, &used(10, 0, 0)), 0);
    assert!(table.is_empty());
}

#[test]
fn who_came_first_shrinks_to_its_part_as_requests_end() {
    let mut table = SlotTable::default();
    assert_eq!(table.tell(START, 1, &used(10, 0, 20)), 10);
    assert_eq!(table.tell(START, 2, &used(10, 0, 20)), 0, "all is given away");
    assert_eq!(table.tell(START, 1, &used(10, 10, 20)), 5, "it starts none until half have ended");
    assert_eq!(table.tell(START, 2, &used(10, 0, 20)), 0, "they are out");
    assert_eq!(table.tell(START, 1, &used(10, 7, 20)), 5);
    assert_eq!(table.tell(START, 2, &used(10, 0, 20)), 3);
    assert_eq!(table.tell(START, 1, &used(10, 5, 20)), 5);
    assert_eq!(table.tell(START, 2, &used(10, 3, 20)), 5);
}

#[test]
fn what_one_does_not_need_is_the_others() {
    let mut table = SlotTable::default();
    assert_eq!(table.tell(START, 1, &used(10, 0, 20)), 10);
    assert_eq!(table.tell(START, 2, &used(10, 0, 2)), 0);
    assert_eq!(table.tell(START, 1, &used(10, 4, 20)), 8);
    assert_eq!(table.tell(START, 2, &used(10, 0, 2)), 2);
    assert_eq!(table.tell(START, 2, &used(10, 0, 0)), 0);
    assert_eq!(table.tell(START, 1, &used(10, 8, 20)), 10);
}

#[test]
fn a_dead_owners_share_ends_with_its_lease() {
    let mut table = SlotTable::default();
    assert_eq!(table.tell(START, 1, &used(10, 0, 20)), 10);
    let before = START + SLOT_LEASE - Duration::from_millis(1);
    assert_eq!(table.tell(before, 2, &used(10, 0, 20)), 0);
    assert_eq!(table.tell(START + SLOT_LEASE, 2, &used(10, 0, 20)), 10);
    // It was only slow: what it holds is held, more it does not get.
    assert_eq!(table.tell(START + SLOT_LEASE, 1, &used(10, 9, 20)), 0);
}

#[test]
fn a_shrinking_maximum_holds_for_everybody() {
    let mut table = SlotTable::default();
    assert_eq!(table.tell(START, 1, &used(10, 0, 5)), 5);
    assert_eq!(table.tell(START, 2, &used(10, 0, 20)), 5);
    assert_eq!(table.tell(START, 1, &used(4, 5, 3)), 0, "the other has more than there are");
    assert_eq!(table.tell(START, 2, &used(4, 2, 3)), 0, "five are out still");
    assert_eq!(table.tell(START, 1, &used(4, 1, 3)), 2);
    assert_eq!(table.tell(START, 2, &used(4, 2, 3)), 2);
}

#[test]
fn with_more_owners_than_slots_everybody_has_its_turn() {
    let mut table = SlotTable::default();
    let mut had = [0; 3];
    let mut holds = [0; 3];
    let mut now = START;
    for _ in 0..40 {
        now += Duration::from_secs(1);
        for (number, owner) in (1..=3).enumerate() {
            // A request takes less than a second.
            holds[number] = table.tell(now, owner, &used(1, 0, 5));
            had[number] += holds[number];
        }
        assert!(holds.iter().sum::<u32>() <= 1, "{holds:?}");
    }
    assert!(had.iter().all(|times| *times >= 8), "{had:?}");
}

#[test]
fn destinations_are_apart_and_forgotten() {
    let mut table = SlotTable::default();
    for number in 0..100_000 {
        let now = Duration::from_millis(number * 10);
        let used = SlotUse { destination_id: id(number), max: 1, held: 0, wanted: 1 };
        assert_eq!(table.tell(now, 1, &used), 1);
    }
    assert!(table.len() <= 2 * PRUNE_ABOVE, "{}", table.len());
}

/// An owner as the dispatcher is one: it starts while it may, requests end as they like.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    held: u32,
    allowed: u32,
    /// Nothing is started after that.
    until: Duration,
}

proptest! {
    #[test]
    fn the_sum_never_exceeds_the_maximum(
        max in 1_u32..30,
        steps in prop::collection::vec((0_u64..800, 0_usize..4, 0_u32..30, 0_u32..30), 1..200),
    ) {
        let mut table = SlotTable::default();
        let mut clients = [Client::default(); 4];
        let mut now = START;
        for (pause_ms, number, ended, wanted) in steps {
            now += Duration::from_millis(pause_ms);
            let client = &mut clients[number];
            client.held = client.held.saturating_sub(ended);
            let allowed = table.tell(now, u64::try_from(number).unwrap(), &used(max, client.held, wanted));
            prop_assert!(allowed <= client.held + wanted);
            (client.allowed, client.until) = (allowed, now + SLOT_LEASE);
            client.held = client.held.max(allowed);
            // What a dead owner had is out no more when its lease ends.
            for client in &mut clients {
                if client.until <= now {
                    client.held = 0;
                }
            }
            let held: u32 = clients.iter().map(|client| client.held).sum();
            prop_assert!(held <= max, "{clients:?}");
        }
    }

    #[test]
    fn whoever_wants_gets_its_part_in_a_few_calls(max in 1_u32..100, owners in 1_u32..6, greed in 1_u32..200) {
        let mut table = SlotTable::default();
        let mut held = vec![0; as_index(owners)];
        let mut now = START;
        for _ in 0..4 {
            for (number, held) in held.iter_mut().enumerate() {
                now += Duration::from_millis(50);
                // Half of what is out ends between two calls.
                let left = *held / 2;
                *held = table.tell(now, u64::try_from(number).unwrap(), &used(max, left, greed)).max(left);
            }
        }
        for held in held {
            prop_assert!(held >= (max / owners).min(greed), "{held}");
        }
    }
}

fn as_index(number: u32) -> usize {
    usize::try_from(number).unwrap()
}
