//! Producers: they post events, one or many, and repeat what they have no answer to.

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use serde_json::{Value, json};
use signalpost_core::{DestinationId, EventId};
use tokio::{task::JoinSet, time::sleep};

use crate::{check::Invariant, client::Client, people::ORDERED, world::World};

/// How many ordering keys there are.
const KEYS: u64 = 3;

/// One producer, to its end.
pub async fn run(world: Arc<World>, mut client: Client) {
    let knobs = world.knobs.clone();
    let pause = knobs.seconds * 1000 / knobs.posts.max(1);
    let mut pending = JoinSet::new();
    for number in 0..knobs.posts {
        let rest = client.rng.millis(0, pause * 2);
        sleep(rest).await;
        let many = client.rng.chance(0.3);
        let count = if many { client.rng.between(1, 8) } else { 1 };
        let events: Vec<Value> = (0..count).map(|index| event(&mut client, number, index)).collect();
        let must_go_to = world.ask(|checker| checker.routed());
        let key = client.rng.chance(0.4).then(|| format!("{}-{number}", client.name().replace(' ', "-")));
        let (path, body) = match many {
            true => ("/v1/events/batch", json!({ "events": events })),
            false => ("/v1/events", events.into_iter().next().unwrap_or(Value::Null)),
        };
        let post = Post { path, key, body, must_go_to, again: client.rng.chance(0.1) };
        // Now and then the same request is made several times at once, as by an impatient client: one event comes of it.
        let at_once = if client.rng.chance(0.15) { client.rng.between(2, 4) } else { 1 };
        let mut posts = JoinSet::new();
        for copy in 0..at_once {
            let client = client.fork(&format!("{number}-{copy}"));
            posts.spawn(post.clone().make(Arc::clone(&world), client));
        }
        let waits = client.rng.chance(0.7);
        if waits {
            while posts.join_next().await.is_some() {}
        } else {
            pending.spawn(async move { while posts.join_next().await.is_some() {} });
        }
    }
    while pending.join_next().await.is_some() {}
}

/// One request, as it is made until it is answered.
#[derive(Debug, Clone)]
struct Post {
    path: &'static str,
    key: Option<String>,
    body: Value,
    must_go_to: BTreeSet<DestinationId>,
    again: bool,
}

impl Post {
    async fn make(mut self, world: Arc<World>, mut client: Client) {
        loop {
            let Some(reply) = client.insist(Method::POST, self.path, self.key.as_deref(), Some(&self.body)).await
            else {
                return;
            };
            let all = accepted(&world, &reply.body, reply.status, &self.must_go_to);
            if all && !std::mem::take(&mut self.again) {
                return;
            }
            let rest = client.rng.millis(20, 500);
            sleep(rest).await;
        }
    }
}

fn event(client: &mut Client, post: u64, index: u64) -> Value {
    let mut event = json!({
        "type": "order.created",
        "uid": format!("{}-{post}-{index}", client.name().replace(' ', "-")),
        "data": { "n": post },
    });
    if ORDERED && client.rng.chance(0.85) {
        event["ordering_key"] = json!(format!("k{}", client.rng.between(1, KEYS)));
    }
    event
}

/// Checks what was answered; whether all of it was accepted.
fn accepted(world: &World, body: &Value, status: u16, must_go_to: &BTreeSet<DestinationId>) -> bool {
    let answers: Vec<&Value> = match body["results"].as_array() {
        Some(results) => results.iter().collect(),
        None => vec![body],
    };
    let mut all = true;
    for answer in answers {
        match answer["id"].as_str().and_then(|id| id.parse::<EventId>().ok()) {
            Some(id) => {
                let still: BTreeSet<DestinationId> =
                    world.ask(|checker| checker.routed()).intersection(must_go_to).copied().collect();
                world.check(|checker| checker.accepted(id, still));
            }
            // One of a batch that the store did not take now.
            None if answer["error"]["status"].as_u64().is_some_and(|status| status >= 500) => all = false,
            None => {
                world.violate(Invariant::Sound, format!("a post was answered with {status}: {body}"));
                return true;
            }
        }
    }
    all
}
