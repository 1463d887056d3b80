//! People: they create, change, pause, resume and delete destinations, and retry, cancel, replay and discard what went
//! there, while all is under way.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use signalpost_core::{DestinationId, destination::RateLimit};
use tokio::time::{Instant, sleep};

use crate::{
    check::Invariant,
    client::{Client, Reply},
    receivers::{Manner, Receivers},
    seed::Rng,
    world::World,
};

/// What destinations can be asked for by this version of the API.
pub const ORDERED: bool = true;

/// Those who manage destinations.
pub struct People {
    world: Arc<World>,
    client: Client,
    receivers: Arc<Receivers>,
    /// Those that may be changed: all but the first.
    known: BTreeMap<DestinationId, String>,
    made: u32,
}

impl People {
    /// Nobody has done anything yet.
    pub fn new(world: &Arc<World>, client: Client, receivers: &Arc<Receivers>) -> Self {
        Self { world: Arc::clone(world), client, receivers: Arc::clone(receivers), known: BTreeMap::new(), made: 0 }
    }

    /// Makes the destinations that the run begins with.
    pub async fn begin(&mut self) {
        for _ in 0..self.world.knobs.destinations {
            self.create().await;
        }
    }

    /// Changes something, again and again, until the trouble is over.
    pub async fn run(mut self) -> Self {
        let until = self.world.start + Duration::from_secs(self.world.knobs.seconds);
        let rate = self.world.knobs.people;
        while rate > 0.0 && Instant::now() < until && !self.world.broken.is_cancelled() {
            let pause = self.client.rng.millis(0, millis(2.0 / rate));
            sleep(pause).await;
            self.act().await;
        }
        self
    }

    /// Resumes what is paused or disabled, most of it: the rest waits for people for ever.
    pub async fn make_up(&mut self) {
        for id in self.known.keys().copied().collect::<Vec<_>>() {
            if self.client.rng.chance(0.9) {
                self.world.ask(|checker| checker.destinations.get_mut(&id).map(|expected| expected.paused_at = None));
                self.client.insist(Method::POST, &format!("/v1/destinations/{id}/resume"), None, None).await;
            }
        }
    }

    async fn act(&mut self) {
        match self.client.rng.index(12) {
            0 => self.create().await,
            1 | 2 => self.on_one("pause").await,
            3 | 4 => self.on_one("resume").await,
            5 => self.change().await,
            6 if self.client.rng.chance(0.3) => self.delete().await,
            7 => self.on_delivery("retry").await,
            8 => self.on_delivery("cancel").await,
            9 => self.on_dead_letters().await,
            10 => self.replay_event().await,
            11 => self.replay_job().await,
            _ => {}
        }
    }

    async fn create(&mut self) {
        let place = self.made;
        self.made += 1;
        let (name, reference) = (format!("d{place}"), place == 0);
        let rng = &mut self.client.rng;
        let spec = spec(rng, &name, reference);
        let manner = if reference || !rng.chance(self.world.knobs.bad) { Manner::Healthy } else { Manner::bad(rng) };
        // A key is held for two minutes by a process that died: seldom, or a run is all waiting.
        let key = rng.chance(0.15).then(|| format!("create-{name}"));
        let Some(reply) = self.client.insist(Method::POST, "/v1/destinations", key.as_deref(), Some(&spec)).await
        else {
            return;
        };
        let Some(id) = reply.body["id"].as_str().and_then(|id| id.parse().ok()) else {
            self.world.violate(Invariant::Sound, format!("a destination was refused: {} {}", reply.status, reply.body));
            return;
        };
        self.receivers.set(id, manner);
        let rate = spec["rate_limit"]["per_second"].as_f64().map(|per_second| RateLimit {
            per_second,
            burst: spec["rate_limit"]["burst"].as_u64().and_then(|burst| NonZeroU32::new(u32::try_from(burst).ok()?)),
        });
        let most = spec["max_in_flight"].as_u64().and_then(|most| u32::try_from(most).ok());
        self.world.ask(|checker| {
            checker.expect(id, &name, rate, most, Instant::now());
            if let Some(expected) = checker.destinations.get_mut(&id) {
                (expected.reference, expected.routed) = (reference, manner != Manner::Gone);
                expected.blocks = Some(spec["ordering_on_dead"] == "block");
            }
        });
        self.world.tell("people", format_args!("{name} is {id}, {manner:?}: {spec}"));
        if !reference {
            self.known.insert(id, name);
        }
    }

    fn one(&mut self) -> Option<DestinationId> {
        let ids: Vec<DestinationId> = self.known.keys().copied().collect();
        self.client.rng.pick(&ids).copied()
    }

    async fn on_one(&mut self, action: &str) {
        let Some(id) = self.one() else { return };
        let paused_at = |world: &World, at| {
            world.ask(|checker| {
                if let Some(expected) = checker.destinations.get_mut(&id) {
                    expected.paused_at = at;
                }
            });
        };
        if action == "resume" {
            paused_at(&self.world, None);
        }
        let reply = self.client.ask(Method::POST, &format!("/v1/destinations/{id}/{action}"), None, None).await;
        if action == "pause" && reply.is_some_and(|reply| reply.status == 200) {
            paused_at(&self.world, Some(Instant::now()));
        }
    }

    async fn change(&mut self) {
        let Some(id) = self.one() else { return };
        let name = self.known.get(&id).cloned().unwrap_or_default();
        // Old and new limits may both be in use for a while: nothing is expected of them then.
        self.world.ask(|checker| checker.expect(id, &name, None, None, Instant::now()));
        let rng = &mut self.client.rng;
        let kind = rng.index(5);
        if kind == 4 {
            self.world.ask(|checker| checker.unblocks(id));
        }
        let patch = match kind {
            4 => json!({ "ordering_on_dead": "continue" }),
            0 => json!({ "url": url(rng) }),
            1 => json!({ "max_in_flight": rng.between(1, 20) }),
            2 => json!({ "rate_limit": { "per_second": rng.between(5, 50) } }),
            _ => json!({ "rate_limit": null, "retry": retry(rng) }),
        };
        let path = format!("/v1/destinations/{id}");
        let reply = self.client.ask(Method::PATCH, &path, None, Some(&patch)).await;
        if kind == 4 && reply.is_some_and(|reply| reply.status == 200) {
            self.world.ask(|checker| checker.unblocked(id));
        }
    }

    async fn delete(&mut self) {
        let Some(id) = self.one().filter(|_| self.known.len() > 1) else { return };
        self.known.remove(&id);
        self.world.ask(|checker| {
            if let Some(expected) = checker.destinations.get_mut(&id) {
                expected.routed = false;
            }
        });
        self.client.ask(Method::DELETE, &format!("/v1/destinations/{id}"), None, None).await;
    }

    async fn on_delivery(&mut self, action: &str) {
        let rng = &mut self.client.rng;
        // The newest ones are the ones that are under way.
        let chosen = self.world.ask(|checker| {
            let newest: Vec<_> = checker
                .deliveries
                .iter()
                .rev()
                .filter(|(_, known)| !checker.destinations.get(&known.destination).is_some_and(|of| of.reference))
                .take(20)
                .map(|(id, _)| *id)
                .collect();
            rng.pick(&newest).copied()
        });
        if let Some(delivery) = chosen {
            self.client.ask(Method::POST, &format!("/v1/deliveries/{delivery}/{action}"), None, None).await;
        }
    }

    async fn on_dead_letters(&mut self) {
        let Some(list) = self.client.ask(Method::GET, "/v1/dead-letters?limit=20", None, None).await else { return };
        for letter in ids(&list) {
            if self.client.rng.chance(0.5) {
                self.client.ask(Method::POST, &format!("/v1/dead-letters/{letter}/replay"), None, None).await;
            } else if self.client.rng.chance(0.4) {
                self.client.ask(Method::DELETE, &format!("/v1/dead-letters/{letter}"), None, None).await;
            }
        }
    }

    async fn replay_event(&mut self) {
        let Some(list) = self.client.ask(Method::GET, "/v1/events?limit=20", None, None).await else { return };
        let events = ids(&list);
        let (event, to) = (self.client.rng.pick(&events).cloned(), self.one());
        if let (Some(event), Some(to)) = (event, to) {
            let body = json!({ "destination_id": to.to_string() });
            self.client.ask(Method::POST, &format!("/v1/events/{event}/replay"), None, Some(&body)).await;
        }
    }

    async fn replay_job(&mut self) {
        let Some(to) = self.one() else { return };
        let mut body = json!({ "destination_id": to.to_string(), "statuses": ["dead", "delivered"] });
        if self.client.rng.chance(0.5) {
            body["rate_per_second"] = json!(self.client.rng.between(5, 50));
        }
        let Some(job) = self.client.ask(Method::POST, "/v1/replays", None, Some(&body)).await else { return };
        if let Some(id) = job.body["id"].as_str().filter(|_| self.client.rng.chance(0.3)) {
            self.client.ask(Method::POST, &format!("/v1/replays/{id}/cancel"), None, None).await;
        }
    }
}

fn ids(list: &Reply) -> Vec<String> {
    let items = list.body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id = |item: &Value| item["id"].as_str().or_else(|| item["delivery_id"].as_str()).map(str::to_owned);
    items.iter().filter_map(id).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

fn url(rng: &mut Rng) -> String {
    format!("http://127.0.0.1:{}/hook", rng.between(7000, 7999))
}

fn retry(rng: &mut Rng) -> Value {
    json!({
        "strategy": "exponential",
        "initial_ms": rng.between(20, 500),
        "factor": 1.5,
        "max_ms": rng.between(500, 3000),
        "max_attempts": rng.between(2, 8),
    })
}

fn spec(rng: &mut Rng, name: &str, reference: bool) -> Value {
    let mut spec = json!({ "name": name, "url": url(rng), "retry": retry(rng), "timeout_ms": rng.between(1000, 3000) });
    if reference {
        return spec;
    }
    if rng.chance(0.4) {
        spec["rate_limit"] = json!({ "per_second": rng.between(5, 40), "burst": rng.between(1, 8) });
    }
    if rng.chance(0.5) {
        spec["max_in_flight"] = json!(rng.between(1, 6));
    }
    if ORDERED {
        // Short, so that a run sees all of its states.
        spec["circuit"] = json!({
            "enabled": rng.chance(0.7),
            "failures": rng.between(2, 8),
            "open_ms": rng.between(1000, 6000),
            "max_open_ms": rng.between(6000, 10_000),
            "probes": rng.between(1, 4),
        });
        if rng.chance(0.5) {
            spec["ordering"] = json!("key");
            spec["ordering_on_dead"] = json!(if rng.chance(0.4) { "block" } else { "continue" });
        }
        if rng.chance(0.35) {
            spec["guarantee"] = json!("at_most_once");
        }
    }
    spec
}
