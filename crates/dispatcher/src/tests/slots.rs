//! Slots that dispatchers share, and the heartbeat behind their shares.

use std::sync::{Arc, atomic::Ordering};

use signalpost_limits::SlotUse;

use super::harness::{Harness, always, ms};
use crate::{
    Settings,
    fakes::{FakeLimits, destination, destination_id, message, status},
};

#[tokio::test(start_paused = true)]
async fn no_more_go_out_than_the_share_allows() {
    let limits = Arc::new(FakeLimits::default());
    limits.allowed.lock().unwrap().insert(destination_id(1), 2);
    let settings = Settings { max_wait: ms(60_000), ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(1000), status(200)), settings, Some(limits.clone() as _));
    for delivery in 0..20 {
        it.bus.send(message(delivery, 1));
    }
    tokio::time::sleep(ms(900)).await;
    assert_eq!(it.exchanger.started().len(), 2);
    limits.allowed.lock().unwrap().insert(destination_id(1), 5);
    tokio::time::sleep(ms(200)).await;
    assert!((5..=7).contains(&it.exchanger.started().len()), "{}", it.exchanger.started().len());
    // What is out is told truly.
    assert!(limits.slot_uses.lock().unwrap().iter().all(|slot| slot.held <= 5 && slot.max == 100));
}

#[tokio::test(start_paused = true)]
async fn a_destination_with_headroom_costs_no_call_per_request() {
    let limits = Arc::new(FakeLimits::default());
    let it = Harness::with(
        [destination(1)],
        always(ms(2), status(200)),
        Settings::default(),
        Some(Arc::clone(&limits) as _),
    );
    for delivery in 0..1000 {
        it.bus.send(message(delivery, 1));
        tokio::time::sleep(ms(5)).await;
    }
    it.until_all_done().await;
    assert_eq!(it.exchanger.started().len(), 1000);
    let calls = limits.slot_uses.lock().unwrap().len();
    assert!(calls <= 6, "{calls} in 5 s");
    // Idle, it is given back.
    tokio::time::sleep(ms(6000)).await;
    let last = limits.slot_uses.lock().unwrap().last().copied();
    assert_eq!(last, Some(SlotUse { destination_id: destination_id(1), max: 100, held: 0, wanted: 0 }));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_a_fair_part_goes_on() {
    let limits = Arc::new(FakeLimits::default());
    limits.is_away.store(true, Ordering::SeqCst);
    let settings = Settings { max_wait: ms(60_000), ..Settings::default() };
    let it = Harness::with([destination(1)], always(ms(5000), status(200)), settings, Some(limits.clone() as _));
    it.store.state().others = 3;
    // Who is new does not know who has what, though the heart has told how many there are.
    for delivery in 0..200 {
        it.bus.send(message(delivery, 1));
    }
    tokio::time::sleep(ms(4500)).await;
    assert_eq!(it.exchanger.started().len(), 1);
    it.until("its part", |it| it.exchanger.started().len() >= 25).await;
    assert!(it.elapsed() < ms(8000), "{:?}", it.elapsed());
    tokio::time::sleep(ms(2000)).await;
    assert_eq!(it.exchanger.started().len(), 26, "the one that has ended, and 25");
}

#[tokio::test(start_paused = true)]
async fn the_heart_beats_each_second_and_says_farewell() {
    let limits = Arc::new(FakeLimits::default());
    let it =
        Harness::with([destination(1)], always(ms(1), status(200)), Settings::default(), Some(limits.clone() as _));
    it.store.state().others = 2;
    tokio::time::sleep(ms(3500)).await;
    assert!(limits.shares.lock().unwrap().ends_with(&[3, 3]));
    it.store.state().is_away = true;
    tokio::time::sleep(ms(5000)).await;
    it.store.state().is_away = false;
    tokio::time::sleep(ms(2000)).await;
    let store = it.store.clone();
    it.drain().await.unwrap();
    let state = store.state();
    let beats = state.heartbeats.len();
    assert!((6..=8).contains(&beats), "{beats}");
    assert_eq!(state.farewells, [state.heartbeats[0].1]);
}
