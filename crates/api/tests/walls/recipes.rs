//! How each route is asked, so that its rightful caller gets what was asked for.

use serde_json::{Value, json};

use crate::{app::App, home::Home, tenant, text};

/// A request about something that was made for it.
pub struct Call {
    pub method: String,
    pub uri: String,
    /// What the path names; empty where it names nothing.
    pub names: String,
    pub body: Value,
    /// What its rightful caller is answered.
    pub status: u16,
}

/// Operations that are about no tenant.
pub const OPERATIONS: [&str; 3] = ["GET /health/live", "GET /health/ready", "GET /metrics"];

/// A request of that kind, about things of that tenant. None: there is no recipe.
pub async fn make(app: &App, home: &Home, operation: &str) -> Option<Call> {
    let (method, path) = operation.split_once(' ').unwrap();
    let (names, body, status) = of(app, home, operation).await?;
    let (id, key) = names.split_once('/').unwrap_or((&names, ""));
    let uri = path.replace("{id}", id).replace("{key_id}", key);
    Some(Call { method: method.to_owned(), uri, names, body, status })
}

async fn of(app: &App, home: &Home, operation: &str) -> Option<(String, Value, u16)> {
    let nothing = String::new;
    let none = Value::Null;
    let event = json!({"type": "order.created", "data": {"n": 1}});
    let url = json!({"url": "http://127.0.0.1:9999/"});
    let destination = home.destination(app).await;
    let slug = || home.slug.clone();
    Some(match operation {
        "POST /v1/events" => (nothing(), event, 202),
        "POST /v1/events/batch" => (nothing(), json!({"events": [event]}), 202),
        "GET /v1/events"
        | "GET /v1/deliveries"
        | "GET /v1/attempts"
        | "GET /v1/destinations"
        | "GET /v1/dead-letters"
        | "GET /v1/replays"
        | "GET /v1/audit-log"
        | "GET /v1/tenants" => (nothing(), none, 200),
        "GET /v1/events/{id}" | "GET /v1/events/{id}/deliveries" | "GET /v1/events/{id}/attempts" => {
            (home.event(app, &destination).await.0, none, 200)
        }
        "POST /v1/events/{id}/replay" => (home.event(app, &destination).await.0, none, 202),
        "GET /v1/deliveries/{id}" | "GET /v1/deliveries/{id}/attempts" | "POST /v1/deliveries/{id}/cancel" => {
            (home.event(app, &destination).await.1, none, 200)
        }
        "POST /v1/deliveries/{id}/retry" | "POST /v1/dead-letters/{id}/replay" => {
            (home.dead_letter(app, &destination).await, none, 202)
        }
        "GET /v1/dead-letters/{id}" => (home.dead_letter(app, &destination).await, none, 200),
        "DELETE /v1/dead-letters/{id}" => (home.dead_letter(app, &destination).await, none, 204),
        "POST /v1/destinations" => (nothing(), url, 201),
        "GET /v1/destinations/{id}"
        | "GET /v1/destinations/{id}/secret"
        | "POST /v1/destinations/{id}/test"
        | "POST /v1/destinations/{id}/pause"
        | "POST /v1/destinations/{id}/resume"
        | "POST /v1/destinations/{id}/secret/rotate" => (destination, none, 200),
        // Its path names the caller's own uid, so that it is always found: see `names`.
        "PUT /v1/destinations/{id}" => (format!("own-{}", &destination[4..]), url, 201),
        "PATCH /v1/destinations/{id}" => (destination, json!({"name": "changed"}), 200),
        "DELETE /v1/destinations/{id}" => (destination, none, 204),
        "POST /v1/replays" => (nothing(), json!({"destination_id": destination}), 202),
        "GET /v1/replays/{id}" | "POST /v1/replays/{id}/cancel" => {
            let replay = home.ask(app, "POST", "/v1/replays", &json!({"destination_id": destination})).await;
            (text(&replay.expect(202)["id"]).to_owned(), none, 200)
        }
        "POST /v1/tenants" => (nothing(), json!({"name": "Another"}), 201),
        "GET /v1/tenants/{id}" | "GET /v1/tenants/{id}/keys" => (slug(), none, 200),
        "PATCH /v1/tenants/{id}" => (slug(), json!({"name": format!("Named by {destination}")}), 200),
        "DELETE /v1/tenants/{id}" => {
            let created = tenant(app, json!({"name": "To be deleted"})).await;
            (text(&created["tenant"]["id"]).to_owned(), none, 202)
        }
        "POST /v1/tenants/{id}/keys" => (slug(), json!({"name": "k", "scopes": ["events:read"]}), 201),
        "DELETE /v1/tenants/{id}/keys/{key_id}" => {
            let (key, _) = home.new_key(app, json!(["audit:read"])).await;
            (format!("{}/{key}", home.slug), none, 204)
        }
        _ => return None,
    })
}
