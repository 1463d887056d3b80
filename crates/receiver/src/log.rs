//! What arrived: whole requests, histories by id, totals.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::Serialize;
use signalpost_core::Timestamp;
use tokio::sync::{Notify, futures::Notified};

use crate::Verdict;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it had been read to its end.
    pub at: Timestamp,
    /// How long after it had been read the answer was ready; how long it was held where there was none.
    pub took: Duration,
    /// Of the request.
    pub method: Method,
    /// With its query.
    pub path: String,
    /// Of the request.
    pub headers: HeaderMap,
    /// Of the request.
    pub body: Bytes,
    /// Of its signature.
    pub verdict: Verdict,
    /// What was answered; None: nothing (hang, reset, or the client went first).
    pub status: Option<u16>,
}

impl Received {
    /// A header as text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The event's id.
    pub fn webhook_id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The delivery's id; empty where the sender is not Signalpost.
    pub fn delivery_id(&self) -> &str {
        self.header("signalpost-delivery-id")
    }

    /// The number of the attempt; 0 where the sender is not Signalpost.
    pub fn attempt(&self) -> u32 {
        self.header("signalpost-attempt").parse().unwrap_or(0)
    }
}

/// One request in the history of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// The number in its header.
    pub attempt: u32,
    /// When, since the start of the receiver; never goes back.
    pub since_start: Duration,
    /// What was answered; None: nothing, or nothing yet.
    pub status: Option<u16>,
}

/// Totals since the start, or since the last clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Requests read to their end.
    pub requests: u64,
    /// Of these, answered, or left without an answer for good.
    pub answered: u64,
    /// Answered with 2xx.
    pub accepted: u64,
    /// Different webhook ids seen.
    pub events: u64,
    /// Different webhook ids answered with 2xx.
    pub events_accepted: u64,
    /// Requests beyond the first of their webhook id.
    pub repeats: u64,
    /// 2xx beyond the first of their webhook id: duplicates that a receiver would have to recognise.
    pub duplicates: u64,
    /// Different delivery ids seen.
    pub deliveries: u64,
    /// 2xx beyond the first of their delivery.
    pub duplicate_deliveries: u64,
    /// Requests that came while another one of the same delivery was in progress.
    pub overlaps: u64,
    /// Signatures found right.
    pub valid: u64,
    /// Signatures found missing or wrong.
    pub invalid: u64,
    /// The most requests that were in progress at once.
    pub most_at_once: u64,
}

/// What is remembered of a webhook id.
#[derive(Debug, Default)]
pub(crate) struct EventHistory {
    pub requests: u64,
    pub accepted: u64,
}

#[derive(Debug, Default)]
struct DeliveryHistory {
    arrivals: Vec<Arrival>,
    in_progress: u32,
    accepted: u32,
    overlapped: bool,
}

/// A map that forgets its oldest keys.
#[derive(Debug)]
struct Histories<T> {
    map: HashMap<Arc<str>, T>,
    order: VecDeque<Arc<str>>,
}

impl<T: Default> Histories<T> {
    fn new() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }

    /// The history of a key, and whether it is new.
    fn entry(&mut self, key: &str, most: usize) -> (&mut T, bool) {
        let new = !self.map.contains_key(key);
        if new {
            while self.order.len() >= most.max(1) {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
            self.order.push_back(Arc::from(key));
        }
        (self.map.entry(Arc::from(key)).or_default(), new)
    }
}

#[derive(Debug)]
struct Books {
    kept: VecDeque<Arc<Received>>,
    events: Histories<EventHistory>,
    deliveries: Histories<DeliveryHistory>,
    stats: Stats,
    in_progress: u64,
}

impl Books {
    fn new() -> Self {
        Self {
            kept: VecDeque::new(),
            events: Histories::new(),
            deliveries: Histories::new(),
            stats: Stats::default(),
            in_progress: 0,
        }
    }
}

impl Books {
    fn begin(
        &mut self,
        webhook_id: &str,
        delivery_id: &str,
        attempt: u32,
        since_start: Duration,
        most: usize,
    ) -> Begun {
        let stats = &mut self.stats;
        stats.requests += 1;
        self.in_progress += 1;
        stats.most_at_once = stats.most_at_once.max(self.in_progress);
        if !webhook_id.is_empty() {
            let (event, new) = self.events.entry(webhook_id, most);
            event.requests += 1;
            if new { stats.events += 1 } else { stats.repeats += 1 }
        }
        if delivery_id.is_empty() {
            return Begun { earlier: 0, place: None };
        }
        let (delivery, new) = self.deliveries.entry(delivery_id, most);
        stats.deliveries += u64::from(new);
        if delivery.in_progress > 0 {
            stats.overlaps += 1;
            delivery.overlapped = true;
        }
        delivery.in_progress += 1;
        let place = delivery.arrivals.len();
        delivery.arrivals.push(Arrival { attempt, since_start, status: None });
        Begun { earlier: u32::try_from(place).unwrap_or(u32::MAX), place: Some(place) }
    }
}

/// The books and who waits for them to change.
#[derive(Debug)]
pub(crate) struct Log {
    books: Mutex<Books>,
    changed: Notify,
    keep: usize,
    most_ids: usize,
}

/// What the log says to a request that begins.
pub(crate) struct Begun {
    /// How many requests of its delivery came before (0 where it has no delivery id).
    pub earlier: u32,
    /// Its place in the history of its delivery.
    place: Option<usize>,
}

impl Log {
    pub fn new(keep: usize, most_ids: usize) -> Self {
        Self { books: Mutex::new(Books::new()), changed: Notify::new(), keep, most_ids }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that has been read.
    pub fn begin(&self, webhook_id: &str, delivery_id: &str, attempt: u32, since_start: Duration) -> Begun {
        let begun = self.books().begin(webhook_id, delivery_id, attempt, since_start, self.most_ids);
        self.changed.notify_waiters();
        begun
    }

    /// Notes what became of it.
    pub fn end(&self, begun: &Begun, received: Arc<Received>) {
        let accepted = received.status.is_some_and(|status| (200..300).contains(&status));
        let mut guard = self.books();
        let books = &mut *guard;
        let stats = &mut books.stats;
        books.in_progress = books.in_progress.saturating_sub(1);
        stats.answered += 1;
        match received.verdict {
            Verdict::Valid => stats.valid += 1,
            Verdict::Invalid(_) => stats.invalid += 1,
            Verdict::Unchecked => {}
        }
        if let Some(event) = books.events.map.get_mut(received.webhook_id()).filter(|_| accepted) {
            event.accepted += 1;
            if event.accepted == 1 { stats.events_accepted += 1 } else { stats.duplicates += 1 }
        }
        stats.accepted += u64::from(accepted);
        if let Some(delivery) = books.deliveries.map.get_mut(received.delivery_id()) {
            delivery.in_progress = delivery.in_progress.saturating_sub(1);
            if let Some(arrival) = begun.place.and_then(|place| delivery.arrivals.get_mut(place)) {
                arrival.status = received.status;
            }
            if accepted {
                delivery.accepted += 1;
                stats.duplicate_deliveries += u64::from(delivery.accepted > 1);
            }
        }
        if self.keep > 0 {
            while books.kept.len() >= self.keep {
                books.kept.pop_front();
            }
            books.kept.push_back(received);
        }
        drop(guard);
        self.changed.notify_waiters();
    }

    /// Completes at the next beginning or end of a request. Made before the books are looked at, so that none is missed.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub fn stats(&self) -> Stats {
        self.books().stats
    }

    pub fn received(&self) -> Vec<Arc<Received>> {
        self.books().kept.iter().cloned().collect()
    }

    pub fn by_event(&self, count: impl Fn(&EventHistory) -> u64) -> HashMap<String, u64> {
        self.books().events.map.iter().map(|(id, history)| (id.to_string(), count(history))).collect()
    }

    pub fn by_delivery(&self) -> HashMap<String, Vec<Arrival>> {
        self.books().deliveries.map.iter().map(|(id, history)| (id.to_string(), history.arrivals.clone())).collect()
    }

    pub fn overlapping(&self) -> Vec<String> {
        let books = self.books();
        let mut ids: Vec<_> =
            books.deliveries.map.iter().filter(|(_, h)| h.overlapped).map(|(id, _)| id.to_string()).collect();
        ids.sort();
        ids
    }

    pub fn clear(&self) {
        let mut books = self.books();
        let in_progress = books.in_progress;
        *books = Books { in_progress, ..Books::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_ids_only() {
        let mut histories = Histories::<EventHistory>::new();
        for id in ["a", "b", "c"] {
            histories.entry(id, 2).0.requests += 1;
        }
        assert!(!histories.map.contains_key("a"));
        assert!(!histories.entry("c", 2).1);
        assert!(histories.entry("a", 2).1);
        assert_eq!(histories.map.len(), 2);
    }
}
