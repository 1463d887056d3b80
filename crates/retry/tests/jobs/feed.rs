//! The feed: order, marks, what happens when the bus does not take it, and how soon.

use std::time::Duration;

use signalpost_bus::{Origin, Payload, message::MAX_INLINE_BYTES};
use signalpost_retry::Settings;
use signalpost_store::schedule::DueDelivery;

use crate::fakes::{Fake, START, due};

const MILLI: Duration = Duration::from_millis(1);

fn at_once(deliveries: impl IntoIterator<Item = DueDelivery>) -> Vec<(Duration, DueDelivery)> {
    deliveries.into_iter().map(|delivery| (Duration::ZERO, delivery)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_published_in_order_under_its_lease() {
    let fake = Fake::new();
    let unloaded = DueDelivery { whole: false, ..due(2, 0) };
    fake.state().due = at_once([due(0, 10), due(1, MAX_INLINE_BYTES + 1), unloaded]);
    let settings = Settings::default();
    let leased_until = START + settings.feed_lease;
    fake.run_for(settings, Duration::from_secs(1)).await;

    let published = fake.published();
    let ids = published.iter().map(|message| message.delivery_id).collect::<Vec<_>>();
    assert_eq!(ids, (0..3).map(|number| due(number, 0).delivery_id).collect::<Vec<_>>());
    for message in &published {
        assert_eq!(message.origin, Origin::Feed { leased_until });
        assert_eq!(message.attempt, 3, "two are recorded");
        assert_eq!(message.destination_version, 3);
    }
    let payloads = published.iter().map(|message| (message.payload, message.event.data.len())).collect::<Vec<_>>();
    assert_eq!(payloads, [(Payload::Inline, 10), (Payload::ByReference, 0), (Payload::ByReference, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_bus_does_not_take_is_given_back_and_only_that() {
    // Two publications of 500 each; the first or the second fails.
    for (publications, taken) in [(vec![false], 0_u16), (vec![true, false], 500)] {
        let fake = Fake::new();
        fake.state().due = at_once((0..1000).map(|number| due(number, 1)));
        fake.state().publications = publications.into();
        fake.run_for(Settings::default(), 50 * MILLI).await;

        assert_eq!(fake.published().len(), usize::from(taken));
        let given_back = fake.state().given_back.clone();
        let expected = (taken..1000).map(|number| due(number, 1).delivery_id).collect::<Vec<_>>();
        assert_eq!(given_back.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
        assert!(given_back.iter().all(|(_, lease)| *lease == START + Settings::default().feed_lease), "under its mark");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_is_tried_less_and_less_often_and_then_fed() {
    let fake = Fake::new();
    let long = Duration::from_secs(10);
    let running = fake.start(Settings::default());
    // As long as it is away, what is given back is due again.
    let started = tokio::time::Instant::now();
    while started.elapsed() < long {
        {
            let mut state = fake.state();
            state.publications = vec![false; 1].into();
            if state.due.is_empty() {
                state.due = at_once([due(0, 1)]);
            }
        }
        tokio::time::sleep(10 * MILLI).await;
    }
    let tries = fake.calls("give_back").len();
    assert!((5..=15).contains(&tries), "{tries} tries in 10 s");
    fake.state().publications.clear();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fake.published().len(), 1);
    running.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_becomes_due_is_published_at_that_moment() {
    let fake = Fake::new();
    let moments = [30 * MILLI, 55 * MILLI, 170 * MILLI, 1234 * MILLI];
    fake.state().due = (0..).zip(moments).map(|(number, at)| (at, due(number, 1))).collect();
    fake.run_for(Settings::default(), Duration::from_secs(2)).await;
    let published = fake.state().published.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(published.len(), moments.len());
    for (published, due) in published.iter().zip(moments) {
        assert!(*published >= due && *published <= due + 2 * MILLI, "due {due:?}, published {published:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_due_unforeseen_waits_for_one_poll_at_most() {
    for settings in [Settings::default(), Settings::standalone()] {
        let poll = settings.feed_poll;
        let fake = Fake::new();
        let running = fake.start(settings);
        tokio::time::sleep(Duration::from_millis(10_007)).await;
        let now = Duration::from_millis(10_007);
        fake.state().due.push((now, due(0, 1)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let late = fake.state().published[0].0 - now;
        assert!(late <= poll + MILLI, "{late:?}");
        running.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_there_is_more_it_does_not_pause() {
    let fake = Fake::new();
    fake.state().due = at_once((0..5000).map(|number| due(number, 1)));
    fake.run_for(Settings::default(), 5 * MILLI).await;
    assert_eq!(fake.published().len(), 5000);
    assert!(fake.calls("take_due").len() >= 5, "at most 1000 at once");
}

#[tokio::test(start_paused = true)]
async fn a_full_bus_is_given_a_trickle_until_it_has_room() {
    let fake = Fake::new();
    fake.state().lag = Some(1000);
    fake.state().due = at_once((0..5000).map(|number| due(number, 1)));
    let settings = Settings { most_on_bus: 1000, ..Settings::default() };
    let running = fake.start(settings);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let trickled = fake.published().len();
    // The first take does not know yet.
    assert!((1001..2000).contains(&trickled), "{trickled}");
    fake.state().lag = Some(0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fake.published().len(), 5000);
    running.drain().await;
}
