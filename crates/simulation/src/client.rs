//! A client of the API: it asks any process that runs, and may get no answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt as _;

use crate::{life::Life, seed::Rng, world::World};

/// The operator's key.
pub const KEY: &str = "key-of-the-simulation";

/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// The API processes that run, by their places.
pub type Apis = Mutex<Vec<Option<(Arc<Life>, Router)>>>;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Null where it is no JSON.
    pub body: Value,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    world: Arc<World>,
    apis: Arc<Apis>,
    name: String,
    /// Its draws.
    pub rng: Rng,
}

impl Client {
    /// A new one.
    pub fn new(world: &Arc<World>, apis: &Arc<Apis>, name: &str) -> Self {
        let rng = Rng::of(world.seed, name);
        Self { world: Arc::clone(world), apis: Arc::clone(apis), name: name.to_owned(), rng }
    }

    /// Another one beside it.
    pub fn fork(&self, name: &str) -> Self {
        Self::new(&self.world, &self.apis, &format!("{} {name}", self.name))
    }

    /// In the trace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One request. None: nobody knows what came of it.
    pub async fn ask(&mut self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Option<Reply> {
        let chosen = {
            let apis = self.apis.lock().unwrap_or_else(PoisonError::into_inner);
            let running: Vec<_> = apis.iter().flatten().cloned().collect();
            self.rng.pick(&running).cloned()
        };
        let Some((life, router)) = chosen else {
            sleep(Duration::from_millis(100)).await;
            return None;
        };
        self.world.tell(&self.name, format_args!("{method} {path} at {}", life.name));
        let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {KEY}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body).ok()?;
        let answered = async {
            let (parts, body) = router.oneshot(request).await.ok()?.into_parts();
            let bytes = body.collect().await.ok()?.to_bytes();
            Some(Reply { status: parts.status.as_u16(), body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
        };
        let reply = tokio::select! {
            biased;
            () = life.dead.cancelled() => None,
            reply = answered => reply,
            () = sleep(PATIENCE) => None,
        };
        let lost = self.rng.chance(self.world.knobs.lost_answers) && !self.world.is_healed();
        let shown = reply.as_ref().map(|reply| reply.status);
        self.world.tell(&self.name, format_args!("got {shown:?}{}", if lost { ", lost" } else { "" }));
        reply.filter(|_| !lost)
    }

    /// Repeats a request until its answer says more than "later". None: the run is over.
    pub async fn insist(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Reply> {
        while !self.world.broken.is_cancelled() {
            if let Some(reply) = self.ask(method.clone(), path, key, body).await
                && !matches!(reply.status, 409 | 429 | 500..)
            {
                return Some(reply);
            }
            let pause = self.rng.millis(50, 1500);
            sleep(pause).await;
        }
        None
    }
}
