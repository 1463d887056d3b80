mod rates;

use std::sync::Arc;

use signalpost_bus::Place;

use signalpost_limits::{SlotUse, TokenGrant};

use super::*;
use crate::fakes::{destination, destination_id, limited, message};

const BOUNDS: Bounds =
    Bounds { in_flight: 10, queued: 100, bytes: 1000, wait: Duration::from_secs(2), park: Duration::from_secs(1) };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn job(delivery: u32, number: u8, since: Duration) -> Job {
    let place = Place { partition: i32::from(number), epoch: 1, offset: i64::from(delivery) };
    Job::new(Some(place), Arc::new(message(delivery, number)), since)
}

/// The next job; slots are granted where they are asked for.
fn next(queues: &mut Queues, now: Duration) -> Option<Job> {
    loop {
        if let Some(job) = queues.next(now) {
            return Some(job);
        }
        let told = queues.wanted_slots();
        if told.is_empty() {
            return None;
        }
        for told in &told {
            queues.slots_granted(told, Some(told.max), now, now);
        }
    }
}

/// Grants all slots of a destination.
fn grant(queues: &mut Queues, number: u8) {
    let told = SlotUse { destination_id: destination_id(number), max: 100, held: 0, wanted: 100 };
    assert_eq!(queues.shares.take(told.destination_id, 0, ms(0)), Err(None));
    queues.slots_granted(&told, Some(100), ms(0), ms(0));
}

fn next_of(queues: &mut Queues, now: Duration) -> Option<DestinationId> {
    next(queues, now).map(|job| job.message.destination_id)
}

#[test]
fn destinations_take_turns() {
    let mut queues = Queues::new(BOUNDS);
    for delivery in 0..5 {
        assert!(queues.push(job(delivery, 1, ms(0)), &destination(1).spec, ms(0)).is_none());
    }
    assert!(queues.push(job(9, 2, ms(0)), &destination(2).spec, ms(0)).is_none());
    // Both have their slots before the first is asked for.
    for number in [1, 2] {
        grant(&mut queues, number);
    }
    let order: Vec<_> = std::iter::from_fn(|| next_of(&mut queues, ms(0))).collect();
    let (one, two) = (destination_id(1), destination_id(2));
    assert_eq!(order, [one, two, one, one, one]);
    assert_eq!(
        queues.in_flight(),
        5,
        "of ten, one is kept for others, and one destination leaves as many free as it has"
    );
}

#[test]
fn one_destination_leaves_as_much_free_as_it_takes() {
    let mut queues = Queues::new(BOUNDS);
    for delivery in 0..20 {
        queues.push(job(delivery, 1, ms(0)), &destination(1).spec, ms(0));
    }
    assert_eq!(std::iter::from_fn(|| next_of(&mut queues, ms(0))).count(), 5);
    queues.push(job(30, 2, ms(0)), &destination(2).spec, ms(0));
    assert_eq!(next_of(&mut queues, ms(0)), Some(destination_id(2)));
    assert_eq!(next_of(&mut queues, ms(0)), None);
    // With what ends, the crowded one goes on.
    queues.ended(destination_id(2), ms(0));
    queues.ended(destination_id(1), ms(0));
    assert_eq!(next_of(&mut queues, ms(0)), Some(destination_id(1)));
}

#[test]
fn what_is_idle_is_forgotten() {
    let mut queues = Queues::new(BOUNDS);
    queues.push(job(1, 1, ms(0)), &destination(1).spec, ms(0));
    assert!(next(&mut queues, ms(0)).is_some());
    assert!(queues.holds(destination_id(1)));
    queues.ended(destination_id(1), ms(1));
    assert!(!queues.holds(destination_id(1)));
    assert_eq!((queues.next_timer(), queues.room()), (None, 100));
}

#[test]
fn tokens_are_asked_for_in_blocks_and_used_or_lost() {
    let mut queues = Queues::new(BOUNDS);
    let spec = limited(1, 100.0).spec;
    for delivery in 0..8 {
        queues.push(job(delivery, 1, ms(0)), &spec, ms(0));
    }
    assert!(next(&mut queues, ms(0)).is_none());
    let wanted = queues.wanted_tokens();
    assert_eq!(wanted.iter().map(|request| request.wanted).collect::<Vec<_>>(), [5], "50 ms of 100/s");
    assert_eq!(queues.wanted_tokens(), [], "one question at a time");
    let grant = TokenGrant { granted: 3, ready: 1, next_in: ms(10), every: ms(10), retry_after: ms(15) };
    queues.granted(&wanted[0], Some(grant), ms(0));
    assert!(next(&mut queues, ms(0)).is_some());
    assert!(next(&mut queues, ms(9)).is_none());
    assert_eq!((queues.wanted_tokens(), queues.next_timer()), (Vec::new(), Some(ms(10))));
    // The second was not used in time, the third was.
    queues.overdue(ms(61), false);
    assert!(next(&mut queues, ms(61)).is_some());
    assert!(next(&mut queues, ms(61)).is_none());
    assert_eq!(queues.wanted_tokens().len(), 1);
}

#[test]
fn tokens_of_an_earlier_limit_are_lost() {
    let mut queues = Queues::new(BOUNDS);
    for delivery in 0..3 {
        queues.push(job(delivery, 1, ms(0)), &limited(1, 100.0).spec, ms(0));
    }
    next(&mut queues, ms(0));
    let wanted = queues.wanted_tokens();
    queues.granted(&wanted[0], Some(TokenGrant::ready(1)), ms(0));
    queues.reconfigure(destination_id(1), &limited(1, 1.0).spec);
    assert!(next(&mut queues, ms(0)).is_none());
    let again = queues.wanted_tokens();
    queues.reconfigure(destination_id(1), &limited(1, 2.0).spec);
    queues.granted(&again[0], Some(TokenGrant::ready(1)), ms(1));
    assert!(next(&mut queues, ms(1)).is_none());
    assert_eq!(queues.wanted_tokens().len(), 1);
}

#[test]
fn a_refused_token_is_asked_for_again_when_it_is_due() {
    let mut queues = Queues::new(BOUNDS);
    queues.push(job(1, 1, ms(0)), &limited(1, 10.0).spec, ms(0));
    next(&mut queues, ms(0));
    let wanted = queues.wanted_tokens();
    queues.granted(&wanted[0], Some(TokenGrant::none(ms(70))), ms(0));
    assert!(next(&mut queues, ms(0)).is_none());
    assert_eq!((queues.wanted_tokens(), queues.next_timer()), (Vec::new(), Some(ms(70))));
    assert!(queues.overdue(ms(70), false).is_empty());
    next(&mut queues, ms(70));
    assert_eq!(queues.wanted_tokens().len(), 1);
}

#[test]
fn what_waits_too_long_is_given_back_unless_it_is_our_fault() {
    let mut queues = Queues::new(BOUNDS);
    let mut spec = destination(1).spec;
    spec.max_in_flight = std::num::NonZeroU32::MIN;
    for (delivery, since) in [(1, 0), (2, 100), (3, 1500)] {
        queues.push(job(delivery, 1, ms(since)), &spec, ms(since));
    }
    assert!(next(&mut queues, ms(1500)).is_some());
    let parked = queues.overdue(ms(2100), false);
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].reason, parked[0].after), (WaitReason::Slot, BOUNDS.park));
    assert_eq!(queues.next_timer(), Some(ms(3500)));
    assert!(queues.overdue(ms(3500), true).is_empty());
    assert!(queues.overdue(ms(4000), true).is_empty());
    assert!(queues.overdue(ms(4250), false).is_empty(), "once we go on, it has its time again");
    assert_eq!(queues.overdue(ms(6000), false).len(), 1);
    assert_eq!(queues.room(), 100);
}

#[test]
fn room_that_is_given_back_goes_to_one_that_can_use_it() {
    let mut queues = Queues::new(BOUNDS);
    for (number, jobs, started) in [(1, 20, 5), (3, 20, 2), (2, 5, 1)] {
        for delivery in 0..jobs {
            queues.push(job(u32::from(number) * 100 + delivery, number, ms(0)), &destination(number).spec, ms(0));
        }
        assert_eq!(std::iter::from_fn(|| next_of(&mut queues, ms(0))).count(), started);
    }
    // The first two in line have nothing left to send.
    queues.take_all(destination_id(1), ms(0));
    queues.take_all(destination_id(3), ms(0));
    queues.ended(destination_id(1), ms(0));
    assert_eq!(next_of(&mut queues, ms(0)), Some(destination_id(2)));
}

#[test]
fn who_would_have_asked_for_tokens_had_there_been_room_asks_when_there_is() {
    let mut queues = Queues::new(BOUNDS);
    queues.push(job(1, 1, ms(0)), &limited(1, 100.0).spec, ms(0));
    for (number, jobs) in [(2, 5), (3, 2), (4, 1), (5, 1)] {
        for delivery in 0..jobs {
            queues.push(job(u32::from(number) * 100 + delivery, number, ms(0)), &destination(number).spec, ms(0));
        }
        while next(&mut queues, ms(0)).is_some() {}
    }
    assert_eq!((queues.in_flight(), queues.wanted_tokens()), (9, Vec::new()));
    queues.ended(destination_id(2), ms(0));
    assert!(next(&mut queues, ms(0)).is_none());
    assert_eq!(queues.wanted_tokens().len(), 1);
}

#[test]
fn when_room_is_short_the_slow_give_back() {
    let mut queues = Queues::new(BOUNDS);
    for (number, since) in [(1, 0), (2, 900)] {
        let mut spec = destination(number).spec;
        spec.max_in_flight = std::num::NonZeroU32::MIN;
        for delivery in 0..50 {
            queues.push(job(u32::from(number) * 100 + delivery, number, ms(since)), &spec, ms(since));
        }
    }
    assert!(queues.is_full());
    let parked = queues.shed(ms(1000));
    assert_eq!(parked.len(), 50);
    assert!(parked.iter().all(|parked| parked.job.message.destination_id == destination_id(1)));
    assert!(!queues.is_full() && queues.room() == 50);
}

#[test]
fn jobs_of_a_partition_and_of_a_destination_can_be_taken() {
    let mut queues = Queues::new(BOUNDS);
    for (delivery, number) in [(1, 1), (2, 2), (3, 1)] {
        queues.push(job(delivery, number, ms(0)), &destination(number).spec, ms(0));
    }
    assert_eq!(queues.take_partitions(&[1], ms(0)).len(), 2);
    assert_eq!(queues.take_all(destination_id(2), ms(0)).len(), 1);
    assert_eq!((queues.room(), queues.next_timer(), next(&mut queues, ms(0)).is_none()), (100, None, true));
}

#[test]
fn tenants_take_turns_however_many_destinations_they_have() {
    let mut queues = Queues::new(Bounds { in_flight: 1000, queued: 1000, ..BOUNDS });
    for number in 1..=100 {
        for delivery in 0..2 {
            let job = job(u32::from(number) * 10 + delivery, number, ms(0));
            queues.push(job, &destination(number).spec, ms(0));
        }
        grant(&mut queues, number);
    }
    let other = TenantId::from_parts(crate::fakes::START, [7; 10]);
    for number in [201, 202] {
        for delivery in 0..5 {
            let mut job = job(u32::from(number) * 10 + delivery, number, ms(0));
            Arc::make_mut(&mut job.message).tenant_id = other;
            queues.push(job, &destination(number).spec, ms(0));
        }
        grant(&mut queues, number);
    }
    let first: Vec<_> =
        std::iter::from_fn(|| next(&mut queues, ms(0))).take(20).map(|job| job.message.tenant_id).collect();
    assert_eq!(first.iter().filter(|tenant| **tenant == other).count(), 10, "every other turn");
}

#[test]
fn a_tenant_whose_destinations_all_hang_leaves_room_for_another() {
    let mut queues = Queues::new(Bounds { in_flight: 64, queued: 1000, ..BOUNDS });
    for number in 1..=100 {
        queues.push(job(u32::from(number), number, ms(0)), &destination(number).spec, ms(0));
    }
    while next(&mut queues, ms(0)).is_some() {}
    assert_eq!(queues.in_flight(), 56);
    let mut job = job(500, 200, ms(0));
    Arc::make_mut(&mut job.message).tenant_id = TenantId::from_parts(crate::fakes::START, [7; 10]);
    queues.push(job, &destination(200).spec, ms(0));
    assert_eq!(next_of(&mut queues, ms(0)), Some(destination_id(200)));
    // What ends goes on within its tenant.
    queues.ended(destination_id(1), ms(1));
    assert!(next_of(&mut queues, ms(1)).is_some());
    assert!(next_of(&mut queues, ms(1)).is_none());
    // When room is short, what is crowded out waits in the store.
    assert_eq!(queues.shed(ms(600)).len(), 43);
}

#[test]
fn while_we_are_what_is_slow_nothing_is_parked() {
    let mut queues = Queues::new(Bounds { in_flight: 1000, queued: 8000, bytes: 1_000_000, ..BOUNDS });
    let spec = destination(1).spec;
    grant(&mut queues, 1);
    for delivery in 0..3000 {
        assert!(queues.push(job(delivery, 1, ms(0)), &spec, ms(0)).is_none());
    }
    // A thousand a second end, all slots are always taken: the last waits for three seconds, and no destination is slow.
    let mut now = 0;
    while next(&mut queues, ms(now)).is_some() {}
    assert!(queues.is_congested(ms(now)), "nothing more is taken in hand");
    for _ in 0..2500 {
        now += 1;
        queues.ended(destination_id(1), ms(now));
        assert!(next(&mut queues, ms(now)).is_some());
        assert_eq!(queues.overdue(ms(now), false).len(), 0);
    }
    assert!(!queues.is_congested(ms(now)));
    // Now it hangs.
    assert_eq!(queues.overdue(ms(now + 499), false).len(), 0);
    assert_eq!(queues.overdue(ms(now + 1000), false).len(), 400);
}

#[test]
fn a_burst_has_a_moment_to_show_how_fast_its_destination_is() {
    let mut queues = Queues::new(Bounds { queued: 8000, bytes: 1_000_000, ..BOUNDS });
    let spec = destination(1).spec;
    for delivery in 0..6000 {
        assert!(queues.push(job(delivery, 1, ms(10)), &spec, ms(10)).is_none());
    }
    assert!(queues.push(job(6000, 1, ms(20)), &spec, ms(20)).is_some(), "the rest of the room is for others");
    // None has ended after that moment.
    assert!(queues.take_all(destination_id(1), ms(600)).len() == 6000 && queues.load(destination_id(1)) == (0, 0));
    grant(&mut queues, 2);
    assert!(queues.push(job(0, 2, ms(600)), &spec, ms(600)).is_none());
    assert!(next(&mut queues, ms(600)).is_some());
    let kept = (1..8000).filter(|delivery| queues.push(job(*delivery, 2, ms(1200)), &spec, ms(1200)).is_none());
    assert_eq!(kept.count(), 4000);
}

#[test]
fn an_open_circuit_takes_nothing_and_a_trying_one_a_few() {
    let mut queues = Queues::new(BOUNDS);
    let (id, spec) = (destination_id(1), destination(1).spec);
    grant(&mut queues, 1);
    for delivery in 0..3 {
        queues.push(job(delivery, 1, ms(0)), &spec, ms(0));
    }
    queues.set_gate(id, Some(Gate::Open { until: ms(30_000) }));
    assert!(next(&mut queues, ms(0)).is_none());
    let parked = queues.park_beyond(id, 0, ms(0));
    assert_eq!(parked.len(), 3);
    let parked = queues.push(job(4, 1, ms(10_000)), &spec, ms(10_000)).unwrap();
    assert_eq!((parked.reason, parked.after), (WaitReason::Circuit, ms(20_000)));
    // Its time is over: what comes waits for an answer.
    for delivery in 5..9 {
        assert!(queues.push(job(delivery, 1, ms(30_000)), &spec, ms(30_000)).is_none());
    }
    assert!(next(&mut queues, ms(30_000)).is_none());
    queues.set_gate(id, Some(Gate::Trying { left: 2 }));
    let probes: Vec<_> = std::iter::from_fn(|| next(&mut queues, ms(30_001))).map(|job| job.is_probe).collect();
    assert_eq!((probes, queues.gate(id)), (vec![true, true], Some(Gate::Trying { left: 0 })));
    let parked = queues.park_beyond(id, 0, ms(30_001));
    assert_eq!(parked.iter().map(|parked| parked.reason).collect::<Vec<_>>(), [WaitReason::Circuit; 2]);
    for delivery in 10..15 {
        queues.push(job(delivery, 1, ms(30_002)), &spec, ms(30_002));
    }
    queues.set_gate(id, Some(Gate::Ramp { most: 4 }));
    let started: Vec<_> = std::iter::from_fn(|| next(&mut queues, ms(30_002))).map(|job| job.is_probe).collect();
    assert_eq!(started, [false; 2], "two probes are still out");
    queues.set_gate(id, None);
    assert_eq!(
        std::iter::from_fn(|| next(&mut queues, ms(30_002))).count(),
        1,
        "its own bound is half of what is left"
    );
}

#[test]
fn a_destination_that_wants_to_be_left_alone_has_all_parked_at_once() {
    let mut queues = Queues::new(BOUNDS);
    let spec = destination(1).spec;
    for delivery in 0..3 {
        queues.push(job(delivery, 1, ms(0)), &spec, ms(0));
    }
    assert!(next(&mut queues, ms(0)).is_some());
    let (is_news, parked) = queues.slow_down(destination_id(1), ms(30_000), ms(10));
    assert!(is_news);
    assert!(parked.iter().all(|parked| (parked.reason, parked.after) == (WaitReason::RateLimit, ms(30_000))));
    assert_eq!(parked.len(), 2);
    let (is_news, _) = queues.slow_down(destination_id(1), ms(30_000), ms(20));
    assert!(!is_news, "the next one of many says the same");
    assert!(queues.push(job(9, 1, ms(20)), &spec, ms(20)).is_some());
    queues.reconfigure(destination_id(1), &spec);
    assert!(queues.push(job(10, 1, ms(30)), &spec, ms(30)).is_none());
}
