//! Slots: the sum, fairness, leases.

use std::time::Duration;

use signalpost_core::DestinationId;

use super::{DEADLINE, World, asked, surely};
use crate::{Limits, Owner, SLOT_LEASE, SlotUse};

const MAX: u32 = 10;

/// A dispatcher with its requests.
struct Dispatcher<'a> {
    limits: &'a dyn Limits,
    owner: Owner,
    id: DestinationId,
    held: u32,
}

impl Dispatcher<'_> {
    /// Tells, and starts what it may.
    async fn tell(&mut self, max: u32, wanted: u32) -> u32 {
        let used = SlotUse { destination_id: self.id, max, held: self.held, wanted };
        let allowed = surely(self.limits, async || self.limits.slots(self.owner, &[used]).await).await[0];
        assert!(allowed <= self.held + wanted);
        self.held = self.held.max(allowed);
        allowed
    }

    fn ends(&mut self, requests: u32) {
        self.held = self.held.saturating_sub(requests);
    }
}

pub(super) async fn exercise(one: &dyn Limits, two: &dyn Limits, world: &World) {
    answers_in_order(one, world).await;
    shares_fairly(one, two, world).await;
    follows_a_shrinking_maximum(one, two, world).await;
    gives_everybody_a_turn(one, two, world).await;
    frees_what_the_dead_had(one, two, world).await;
}

fn pair<'a>(one: &'a dyn Limits, two: &'a dyn Limits, world: &World) -> (Dispatcher<'a>, Dispatcher<'a>) {
    let id = world.destination();
    let of = |limits, owner| Dispatcher { limits, owner, id, held: 0 };
    (of(one, 1), of(two, 2))
}

/// Many destinations in one call, and none takes another's slots.
async fn answers_in_order(limits: &dyn Limits, world: &World) {
    let uses: Vec<_> =
        (1..=600).map(|max| SlotUse { destination_id: world.destination(), max, held: 0, wanted: 1000 }).collect();
    let allowed = surely(limits, async || limits.slots(7, &uses).await).await;
    assert_eq!(allowed, (1..=600).collect::<Vec<_>>());
    assert!(asked(async || limits.slots(7, &[]).await).await.is_empty());
    let done: Vec<_> = uses.iter().map(|used| SlotUse { wanted: 0, ..*used }).collect();
    assert_eq!(surely(limits, async || limits.slots(7, &done).await).await, [0; 600]);
    assert_eq!(surely(limits, async || limits.slots(8, &uses[..100]).await).await, allowed[..100]);
}

async fn shares_fairly(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let (mut first, mut second) = pair(one, two, world);
    assert_eq!(first.tell(MAX, 30).await, MAX, "alone it may have all");
    // Requests end one by one, while both want more than there are.
    for _ in 0..MAX {
        second.tell(MAX, 30).await;
        first.ends(1);
        first.tell(MAX, 30).await;
        assert!(first.held + second.held <= MAX, "{} and {}", first.held, second.held);
    }
    second.tell(MAX, 30).await;
    assert_eq!((first.held, second.held), (MAX / 2, MAX / 2));
    // One needs less: the rest is the other's; it needs none: all is.
    first.ends(4);
    assert_eq!(first.tell(MAX, 0).await, 1);
    assert_eq!(second.tell(MAX, 30).await, MAX - 1);
    first.ends(1);
    assert_eq!(first.tell(MAX, 0).await, 0);
    assert_eq!(second.tell(MAX, 30).await, MAX);
}

async fn follows_a_shrinking_maximum(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let (mut first, mut second) = pair(one, two, world);
    assert_eq!(first.tell(MAX, 5).await, 5);
    assert_eq!(second.tell(MAX, 30).await, 5);
    for max in [4, 4, 4, 4] {
        assert!(first.tell(max, 9).await <= 2);
        assert!(second.tell(max, 9).await <= 2);
        first.ends(1);
        second.ends(1);
    }
    first.tell(4, 9).await;
    second.tell(4, 9).await;
    assert_eq!((first.held, second.held), (2, 2));
}

/// One slot, two who want it all the time: neither waits for good.
async fn gives_everybody_a_turn(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let (mut first, mut second) = pair(one, two, world);
    let mut had = [0, 0];
    let taking_turns = async {
        while had.contains(&0) {
            for (had, dispatcher) in had.iter_mut().zip([&mut first, &mut second]) {
                *had += dispatcher.tell(1, 3).await;
            }
            assert!(first.held + second.held <= 1);
            first.ends(1);
            second.ends(1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, taking_turns).await.is_ok(), "both had it");
}

/// A dead owner's share is free after its lease, a living one's is not.
async fn frees_what_the_dead_had(one: &dyn Limits, two: &dyn Limits, world: &World) {
    let (mut dead, mut heir) = pair(one, two, world);
    assert_eq!(dead.tell(MAX, 6).await, 6);
    let died_at = world.clock.elapsed();
    let inherits = async {
        loop {
            let allowed = heir.tell(MAX, 30).await;
            if allowed == MAX {
                break;
            }
            assert_eq!(allowed, 4, "the rest is the other's until its lease ends");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, inherits).await.is_ok(), "a share that nobody renews ends");
    // The lease may be a call's time older than we know.
    assert!(world.clock.elapsed() - died_at + Duration::from_secs(1) >= SLOT_LEASE);
}
