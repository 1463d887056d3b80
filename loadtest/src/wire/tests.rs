//! Producers and sink together, over real connections.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{Arrival, Client, FIRST_NUMBER, Held, Plan, Ran, Sink, Tally, Template, Variant, tally};
use crate::{epoch::Epoch, load::Pace};

/// The path of all requests.
const PATH: u32 = 7;

fn sink() -> (Epoch, Sink) {
    let epoch = Epoch::start();
    (epoch, Sink::start(epoch, (Ipv4Addr::LOCALHOST, 0).into()).unwrap())
}

fn send(epoch: Epoch, sink: &Sink, count: u64, pace: Pace, repeat_every: u64) -> Ran {
    let client = Client { addresses: vec![sink.address()], connections: 8, epoch, timeout: Duration::from_secs(60) };
    send_with(&client, count, pace, repeat_every)
}

fn send_with(client: &Client, count: u64, pace: Pace, repeat_every: u64) -> Ran {
    let template = Template::direct(&client.addresses[0].to_string(), PATH);
    let variant = |seed| Variant { event_type: "test.0".to_owned(), bytes: 300, seed };
    let requests = (0..16).map(|seed| template.prepare(&[variant(seed)])).collect();
    let plan = Plan { requests, count, events: 1, first: FIRST_NUMBER, pace, repeat_every };
    client.run(plan, &Arc::default()).unwrap()
}

#[test]
fn all_that_is_sent_is_counted_once() {
    let (epoch, sink) = sink();
    let ran = send(epoch, &sink, 500, Pace::Closed, 0);
    let arrivals = sink.take();
    let Held { tally: found, latencies, .. } = tally(&ran.answers, 1, &arrivals, 1);
    assert_eq!(found, Tally { posted: 500, accepted: 500, ..Tally::default() });
    assert_eq!((latencies.len(), sink.accepted()), (500, 500));
    assert!(arrivals.iter().all(|arrival| arrival.path == PATH));
    let (first, last) = (ran.began, ran.ended);
    assert!(arrivals.iter().all(|arrival| arrival.at >= first && arrival.at <= last), "one clock");
}

#[test]
fn what_is_sent_twice_arrives_twice() {
    let (epoch, sink) = sink();
    let ran = send(epoch, &sink, 100, Pace::Closed, 10);
    let mut found = tally(&ran.answers, 1, &sink.take(), 1).tally;
    assert_eq!(std::mem::take(&mut found.duplicate_numbers).len(), 10);
    // The sink knows no idempotency keys: each of the ten is a duplicate, and was not answered as a repetition.
    let wanted = Tally { posted: 90, accepted: 90, duplicates: 10, repeated: 10, unknown: 10, ..Tally::default() };
    assert_eq!(found, wanted);
}

#[test]
fn in_the_open_loop_each_is_due_at_its_time() {
    let (epoch, sink) = sink();
    let mut ran = send(epoch, &sink, 200, Pace::PerSecond(2_000.0), 0);
    ran.answers.sort_unstable_by_key(|answer| answer.first);
    assert_eq!(ran.answers.len(), 200);
    for (nth, answer) in (0_u32..).zip(&ran.answers) {
        assert_eq!(answer.intended, ran.began + Duration::from_secs_f64(f64::from(nth) / 2_000.0));
        assert!(answer.answered >= answer.intended, "sent before it was due");
    }
}

#[test]
fn the_sink_fails_what_it_should_and_goes_and_comes() {
    let (epoch, sink) = sink();
    sink.fail_first(true);
    let failed = send(epoch, &sink, 50, Pace::Closed, 0);
    assert!(failed.answers.iter().all(|answer| answer.status == 503));
    let again = send(epoch, &sink, 50, Pace::Closed, 0);
    assert!(again.answers.iter().all(|answer| answer.status == 200));
    let count = |arrivals: &[Arrival]| arrivals.iter().filter(|arrival| arrival.accepted).count();
    let arrivals = sink.take();
    assert_eq!((arrivals.len(), count(&arrivals)), (100, 50));

    sink.away(true);
    // It goes soon; a connection that it cuts, or refuses, is no answer.
    let gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        std::net::TcpStream::connect(sink.address()).is_err()
    });
    assert!(gone);
    sink.away(false);
    let back = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        std::net::TcpStream::connect(sink.address()).is_ok()
    });
    assert!(back);
    sink.fail_first(false);
    assert_eq!(tally(&send(epoch, &sink, 50, Pace::Closed, 0).answers, 1, &sink.take(), 1).tally.lost, 0);
}

#[test]
fn what_is_never_answered_has_failed() {
    // Connections are taken by the kernel, and nobody reads from them.
    let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addresses = vec![silent.local_addr().unwrap()];
    let client = Client { addresses, connections: 2, epoch: Epoch::start(), timeout: Duration::from_millis(50) };
    let ran = send_with(&client, 6, Pace::Closed, 0);
    assert_eq!(ran.answers.len(), 6);
    assert!(ran.answers.iter().all(|answer| !answer.accepted()));
}
