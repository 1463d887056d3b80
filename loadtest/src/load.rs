//! Producers. Open loop: the n-th event is due at its time whatever became of the others, and its latency counts from then.
//! Closed loop: each of so many workers posts its next event when the last is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Api,
    epoch::Epoch,
    ledger::{Ledger, Posted},
    payload,
};

/// An event to be posted.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its type: which destination it is for.
    pub event_type: String,
    /// Its lane, where it has one.
    pub ordering_key: Option<String>,
    /// How many bytes its `data` has, about.
    pub bytes: usize,
    /// As the scenario counts them.
    pub group: u32,
    /// As whom it is posted; None: as the load.
    pub api: Option<Api>,
}

/// When events are due.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many each second, open loop.
    PerSecond(f64),
    /// As fast as they are answered.
    Closed,
}

/// How a load is made.
#[derive(Clone)]
pub struct Load {
    /// Where it goes.
    pub api: Api,
    /// Its clock.
    pub epoch: Epoch,
    /// Where it is noted.
    pub ledger: Arc<Ledger>,
    /// Shows how far it is.
    pub progress: ProgressBar,
    /// How many requests may be out at once. In the open loop more than enough, else it is none.
    pub workers: usize,
    /// Posts again, with an idempotency key, until it is accepted or that long has passed; zero: posts once.
    pub patience: Duration,
    /// Ends the load early.
    pub stop: CancellationToken,
}

/// What was posted by one load: a range of numbers.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Its first number.
    pub first: u64,
    /// How many.
    pub count: usize,
    /// When its first event was due.
    pub began: Duration,
    /// When the last was answered.
    pub ended: Duration,
}

impl Load {
    /// Posts `count` events and waits for the answers. The n-th event is made by `make`.
    pub async fn run(&self, count: usize, pace: Pace, make: impl Fn(u64) -> Event + Send + Sync + 'static) -> Range {
        let first = self.ledger.reserve(count);
        let began = self.epoch.now() + Duration::from_millis(20);
        let shared = Arc::new((AtomicU64::new(0), make));
        let total = u64::try_from(count).unwrap_or(u64::MAX);
        let mut workers = JoinSet::new();
        for _ in 0..self.workers.min(count) {
            let (load, shared) = (self.clone(), Arc::clone(&shared));
            workers.spawn(async move {
                let (next, make) = &*shared;
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= total {
                        break;
                    }
                    let intended = match pace {
                        Pace::PerSecond(rate) => began + due(nth, rate),
                        Pace::Closed => load.epoch.now(),
                    };
                    load.epoch.sleep_until(intended).await;
                    if load.stop.is_cancelled() {
                        break;
                    }
                    load.post(first + nth, intended, &make(nth)).await;
                    load.progress.inc(1);
                }
            });
        }
        while workers.join_next().await.is_some() {}
        Range { first, count, began, ended: self.epoch.now() }
    }

    async fn post(&self, number: u64, intended: Duration, event: &Event) {
        let api = event.api.as_ref().unwrap_or(&self.api);
        let data = payload::data(number, event.bytes);
        let body = Bytes::from(payload::event(&event.event_type, event.ordering_key.as_deref(), &data));
        let (accepted, tries) = self.until_accepted(api, "/v1/events", &body, number).await;
        self.ledger.note(number, Posted { intended, accepted, group: event.group, tries });
    }

    /// Posts one event that is due then.
    pub async fn post_one(&self, event: &Event, intended: Duration) {
        let number = self.ledger.reserve(1);
        self.post(number, intended, event).await;
        self.progress.inc(1);
    }

    /// Posts these events as one batch, in that order; whether they were accepted.
    pub async fn post_batch(&self, events: &[Event]) -> bool {
        let first = self.ledger.reserve(events.len());
        let intended = self.epoch.now();
        let mut texts = Vec::with_capacity(events.len());
        for (number, event) in (first..).zip(events) {
            let data = payload::data(number, event.bytes);
            texts.push(payload::event(&event.event_type, event.ordering_key.as_deref(), &data));
        }
        let body = Bytes::from(payload::batch(&texts));
        let (accepted, tries) = self.until_accepted(&self.api, "/v1/events/batch", &body, first).await;
        for (number, event) in (first..).zip(events) {
            self.ledger.note(number, Posted { intended, accepted, group: event.group, tries });
        }
        self.progress.inc(u64::try_from(events.len()).unwrap_or(0));
        accepted.is_some()
    }

    /// When it was accepted, and after how many tries.
    async fn until_accepted(&self, api: &Api, path: &str, body: &Bytes, number: u64) -> (Option<Duration>, u32) {
        let key = (!self.patience.is_zero()).then(|| format!("load-{}-{number}", self.epoch.tag()));
        let until = self.epoch.now() + self.patience;
        for tries in 1.. {
            let answer = api.request(Method::POST, path, body.clone(), key.as_deref()).await;
            let now = self.epoch.now();
            match answer {
                Ok((status, _)) if status.as_u16() == 202 => return (Some(now), tries),
                Ok((status, said)) if !status.is_server_error() => {
                    let said = String::from_utf8_lossy(&said).into_owned();
                    self.progress.suspend(|| eprintln!("refused: {status}: {said}"));
                    return (None, tries);
                }
                Ok(_) | Err(_) if now >= until => return (None, tries),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        (None, u32::MAX)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of events")]
fn due(nth: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(nth as f64 / rate)
}
