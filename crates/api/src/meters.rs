//! Metrics of requests. Their handles are kept, as to look one up by its labels costs more than to count.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use http::StatusCode;
use metrics::{Counter, Histogram};
use signalpost_telemetry::names;

/// Those of the routes that were asked for: there are no more of them than the API has.
#[derive(Default)]
pub struct Meters(RwLock<HashMap<String, Route>>);

struct Route {
    seconds: Histogram,
    requests: Vec<(StatusCode, Counter)>,
}

impl Meters {
    /// Counts a request that took so long.
    pub fn measure(&self, route: &str, status: StatusCode, took: Duration) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(route).is_some_and(|known| {
            let counter = known.requests.iter().find(|(of, _)| *of == status);
            counter.inspect(|(_, counter)| {
                counter.increment(1);
                known.seconds.record(took.as_secs_f64());
            });
            counter.is_some()
        });
        if !known {
            self.first(route, status, took);
        }
    }

    /// The first of its route, or of its status there.
    fn first(&self, route: &str, status: StatusCode, took: Duration) {
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = routes.entry(route.to_owned()).or_insert_with(|| Route {
            seconds: metrics::histogram!(names::HTTP_REQUEST_SECONDS, "route" => route.to_owned()),
            requests: Vec::new(),
        });
        known.seconds.record(took.as_secs_f64());
        let labels = [("route", route.to_owned()), ("status", status.as_str().to_owned())];
        let counter = metrics::counter!(names::HTTP_REQUESTS, &labels);
        counter.increment(1);
        // Another one may have come here at the same time.
        if !known.requests.iter().any(|(of, _)| *of == status) {
            known.requests.push((status, counter));
        }
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}
