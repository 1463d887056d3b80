//! The inbox of `dev`: a destination to try with. It keeps the last requests that came to `/dev/inbox`, with a verdict on
//! their signatures, and shows them to programs and browsers.
//!
//! It is for one's own machine: whoever reaches the listener may read it.

mod page;
mod secrets;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, Uri, header},
    response::{Html, IntoResponse, Response},
    routing::{MethodRouter, any},
};
use secrets::Secrets;
use serde_json::json;
use signalpost_api::html;
use signalpost_core::{Clock, Timestamp};
use signalpost_receiver::{Verdict, judge};
use signalpost_store::Store;
use signalpost_vault::KeyRing;

/// Where it is.
pub const PATH: &str = "/dev/inbox";

const MOST_REQUESTS: usize = 100;
const MOST_BYTES: usize = 64 * 1024 * 1024;
const MOST_BODY_BYTES: usize = 16 * 1024 * 1024;

/// A request that came.
pub struct Entry {
    /// From 1, since the start of the process.
    number: u64,
    at: Timestamp,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    verdict: Verdict,
}

impl Entry {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        let headers: serde_json::Map<_, _> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
            .collect();
        json!({
            "number": self.number,
            "received_at": self.at,
            "method": self.method.as_str(),
            "path": self.path,
            "signature": match self.verdict {
                Verdict::Valid => "ok",
                Verdict::Invalid(_) => "wrong",
                Verdict::Unchecked => "unchecked",
            },
            "detail": match &self.verdict {
                Verdict::Invalid(why) => Some(why.as_str()),
                Verdict::Unchecked => Some("no destination points here"),
                Verdict::Valid => None,
            },
            "headers": headers,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    count: u64,
}

/// The inbox. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Inbox {
    kept: Arc<Mutex<Kept>>,
    secrets: Arc<Secrets>,
    clock: Arc<dyn Clock>,
}

impl Inbox {
    /// An empty one; `port` is the one that it is served at.
    pub fn new(store: Arc<dyn Store>, vault: Arc<KeyRing>, clock: Arc<dyn Clock>, port: u16) -> Self {
        Self { kept: Arc::default(), secrets: Arc::new(Secrets::new(store, vault, port)), clock }
    }

    /// Its routes. Everything below [`PATH`] is the inbox, too, so that several destinations can be told apart.
    pub fn router(&self) -> Router {
        let handler: MethodRouter<Self> = any(treat);
        Router::new()
            .route(PATH, handler.clone())
            .route(&format!("{PATH}/{{*rest}}"), handler)
            .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
            .with_state(self.clone())
    }

    /// What was found of an attempt's signature, where the attempt came here.
    pub fn verdict(&self, delivery_id: &str, attempt: u32) -> Option<Verdict> {
        let attempt = attempt.to_string();
        self.kept()
            .entries
            .iter()
            .rev()
            .find(|entry| {
                entry.header("signalpost-delivery-id") == delivery_id && entry.header("signalpost-attempt") == attempt
            })
            .map(|entry| entry.verdict.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep(&self, method: Method, path: String, headers: HeaderMap, body: Bytes) {
        let secrets = self.secrets.at(&path).await;
        let at = self.clock.now();
        let verdict = judge(&secrets, &headers, &body, at.as_secs());
        let mut kept = self.kept();
        kept.count += 1;
        kept.bytes += body.len();
        let entry = Entry { number: kept.count, at, method, path, headers, body, verdict };
        kept.entries.push_back(Arc::new(entry));
        while kept.entries.len() > MOST_REQUESTS || (kept.bytes > MOST_BYTES && kept.entries.len() > 1) {
            let Some(oldest) = kept.entries.pop_front() else { break };
            kept.bytes -= oldest.body.len();
        }
    }

    /// Newest first.
    fn entries(&self) -> Vec<Arc<Entry>> {
        self.kept().entries.iter().rev().cloned().collect()
    }
}

async fn treat(State(inbox): State<Inbox>, uri: Uri, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    if method != Method::GET && method != Method::HEAD {
        inbox.keep(method, uri.path().to_owned(), headers, body).await;
        return "ok\n".into_response();
    }
    let entries = inbox.entries();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return ([html::POLICY], Html(page::render(&entries))).into_response();
    }
    let entries: Vec<_> = entries.iter().map(|entry| entry.json()).collect();
    Json(json!({ "data": entries })).into_response()
}
