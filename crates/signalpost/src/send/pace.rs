//! Groups lines into requests, at the wanted pace and without waiting for a request to fill.

use std::{num::NonZeroU32, time::Duration};

use futures::{Stream, stream};
use tokio::time::Instant;

use super::source::{Items, Line};

/// A request is not filled beyond this, so that it stays well under the API's 16 MiB.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// What is posted at once.
#[derive(Debug, Default)]
pub struct Request {
    /// Which one, from 0.
    pub sequence: u64,
    /// Line numbers and events.
    pub events: Vec<(u64, String)>,
    /// Line numbers, and what is wrong with them.
    pub broken: Vec<(u64, String)>,
    /// How far the input has been read by its last line.
    pub position: u64,
}

impl Request {
    fn add(&mut self, line: Line) -> usize {
        self.position = line.position;
        match line.event {
            Ok(event) => {
                let bytes = event.len();
                self.events.push((line.number, event));
                bytes
            }
            Err(wrong) => {
                self.broken.push((line.number, wrong));
                0
            }
        }
    }
}

/// How lines become requests.
#[derive(Debug, Clone, Copy)]
pub struct Requests {
    batch: usize,
    rate: Option<NonZeroU32>,
}

impl Requests {
    /// At most `batch` events each, and `rate` events per second.
    pub fn new(batch: usize, rate: Option<NonZeroU32>) -> Self {
        // Ten requests a second or more, so that a rate is no series of bursts.
        let batch = rate.map_or(batch, |rate| batch.min((rate.get() / 10).max(1) as usize));
        Self { batch, rate }
    }

    /// The requests of these lines.
    pub fn of(self, items: &mut Items) -> impl Stream<Item = Request> {
        let start = (items, Instant::now(), 0);
        stream::unfold(start, move |(items, mut due, sequence)| async move {
            let mut request = Request { sequence, ..Request::default() };
            let mut bytes = request.add(items.next().await?);
            while request.events.len() < self.batch && request.broken.len() < self.batch && bytes < MOST_BYTES {
                let Some(line) = items.ready() else { break };
                bytes += request.add(line);
            }
            if let Some(rate) = self.rate {
                tokio::time::sleep_until(due).await;
                let events = u32::try_from(request.events.len()).unwrap_or(u32::MAX);
                // What is late is not made up for by a burst of more than a tenth of a second.
                due = due.max(Instant::now() - Duration::from_millis(100));
                due += Duration::from_secs(1) * events / rate.get();
            }
            Some((request, (items, due, sequence + 1)))
        })
    }
}
