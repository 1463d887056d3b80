use std::sync::Arc;

use signalpost_bus::Place;

use super::*;
use crate::fakes::{destination, destination_id, limited, message};

const BOUNDS: Bounds =
    Bounds { in_flight: 10, queued: 100, bytes: 1000, wait: Duration::from_secs(2), park: Duration::from_secs(1) };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn job(delivery: u32, number: u8, since: Duration) -> Job {
    let place = Place { partition: i32::from(number), epoch: 1, offset: i64::from(delivery) };
    Job { place, message: Arc::new(message(delivery, number)), since }
}

fn next_of(queues: &mut Queues, now: Duration) -> Option<DestinationId> {
    queues.next(now).map(|job| job.message.destination_id)
}

#[test]
fn destinations_take_turns() {
    let mut queues = Queues::new(BOUNDS);
    for delivery in 0..5 {
        assert!(queues.push(job(delivery, 1, ms(0)), &destination(1).spec, ms(0)).is_none());
    }
    assert!(queues.push(job(9, 2, ms(0)), &destination(2).spec, ms(0)).is_none());
    let order: Vec<_> = std::iter::from_fn(|| next_of(&mut queues, ms(0))).collect();
    let (one, two) = (destination_id(1), destination_id(2));
    assert_eq!(order, [one, two, one, one, one, one]);
    assert_eq!(queues.in_flight(), 6);
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
    queues.ended(destination_id(2), None, ms(0));
    queues.ended(destination_id(1), None, ms(0));
    assert_eq!(next_of(&mut queues, ms(0)), Some(destination_id(1)));
}

#[test]
fn what_is_idle_is_forgotten() {
    let mut queues = Queues::new(BOUNDS);
    queues.push(job(1, 1, ms(0)), &destination(1).spec, ms(0));
    assert!(queues.next(ms(0)).is_some());
    assert!(queues.holds(destination_id(1)));
    queues.ended(destination_id(1), None, ms(1));
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
    assert!(queues.next(ms(0)).is_none());
    let wanted = queues.wanted_tokens();
    assert_eq!(wanted.iter().map(|request| request.wanted).collect::<Vec<_>>(), [5], "50 ms of 100/s");
    assert_eq!(queues.wanted_tokens(), [], "one question at a time");
    queues.granted(&wanted[0], Some(TokenGrant { granted: 2, retry_after: ms(10) }), ms(0));
    assert!(queues.next(ms(0)).is_some());
    // The second token was not used in time.
    assert!(queues.next(ms(51)).is_none());
    assert_eq!(queues.wanted_tokens().len(), 1);
}

#[test]
fn a_refused_token_is_asked_for_again_when_it_is_due() {
    let mut queues = Queues::new(BOUNDS);
    queues.push(job(1, 1, ms(0)), &limited(1, 10.0).spec, ms(0));
    queues.next(ms(0));
    let wanted = queues.wanted_tokens();
    queues.granted(&wanted[0], Some(TokenGrant { granted: 0, retry_after: ms(70) }), ms(0));
    assert!(queues.next(ms(0)).is_none());
    assert_eq!((queues.wanted_tokens(), queues.next_timer()), (Vec::new(), Some(ms(70))));
    assert!(queues.overdue(ms(70), false).is_empty());
    queues.next(ms(70));
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
    assert!(queues.next(ms(1500)).is_some());
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
    for (number, jobs, started) in [(1, 20, 5), (3, 20, 3), (2, 5, 1)] {
        for delivery in 0..jobs {
            queues.push(job(u32::from(number) * 100 + delivery, number, ms(0)), &destination(number).spec, ms(0));
        }
        assert_eq!(std::iter::from_fn(|| next_of(&mut queues, ms(0))).count(), started);
    }
    // The first two in line have nothing left to send.
    queues.take_all(destination_id(1), ms(0));
    queues.take_all(destination_id(3), ms(0));
    queues.ended(destination_id(1), None, ms(0));
    assert_eq!(next_of(&mut queues, ms(0)), Some(destination_id(2)));
}

#[test]
fn who_would_have_asked_for_tokens_had_there_been_room_asks_when_there_is() {
    let mut queues = Queues::new(BOUNDS);
    queues.push(job(1, 1, ms(0)), &limited(1, 100.0).spec, ms(0));
    for (number, jobs) in [(2, 5), (3, 3), (4, 1), (5, 1)] {
        for delivery in 0..jobs {
            queues.push(job(u32::from(number) * 100 + delivery, number, ms(0)), &destination(number).spec, ms(0));
        }
        while queues.next(ms(0)).is_some() {}
    }
    assert_eq!((queues.in_flight(), queues.wanted_tokens()), (10, Vec::new()));
    queues.ended(destination_id(2), None, ms(0));
    assert!(queues.next(ms(0)).is_none());
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
    assert_eq!((queues.room(), queues.next_timer(), queues.next(ms(0)).is_none()), (100, None, true));
}
