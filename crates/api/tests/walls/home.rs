//! A tenant with keys of every kind, and things of its own.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use signalpost_core::{
    ApiKey, Clock as _, DeadReason, EventMeta, KeyHash, KeyId, Scope, Scopes, TenantId,
    key::{HINT_CHARS, new_key},
};
use signalpost_runtime::SystemEntropy;
use signalpost_store::{TenantStore as _, dispatch::Next};

use crate::{
    app::{App, KEY, Reply},
    ask, tenant, text,
};

/// A tenant.
pub struct Home {
    pub id: TenantId,
    pub slug: String,
    /// With all scopes.
    pub key: String,
    /// One key for each scope.
    pub narrow: Vec<(Scope, String)>,
    pub expired: String,
    pub revoked: String,
}

impl Home {
    pub async fn new(app: &App, slug: &str) -> Self {
        let created = tenant(app, json!({"name": slug, "slug": slug})).await;
        let id: TenantId = text(&created["tenant"]["id"]).parse().unwrap();
        let mut home = Self {
            id,
            slug: slug.to_owned(),
            key: text(&created["key"]).to_owned(),
            narrow: Vec::new(),
            expired: String::new(),
            revoked: String::new(),
        };
        for scope in Scope::ALL {
            let (_, key) = home.new_key(app, json!([scope.as_str()])).await;
            home.narrow.push((scope, key));
        }
        home.expired = home.expired_key(app).await;
        let (revoked, key) = home.new_key(app, json!(["events:read"])).await;
        // It is known before, so that it is found among what was read a moment ago.
        ask(&app.router, &key, "GET", "/v1/events", &[], &Value::Null).await.expect(200);
        app.delete(&format!("/v1/tenants/{slug}/keys/{revoked}")).await.expect(204);
        home.revoked = key;
        // A few things that the other one must not see.
        let destination = home.destination(app).await;
        home.dead_letter(app, &destination).await;
        home.ask(app, "POST", "/v1/replays", &json!({"since": "2026-01-01T00:00:00Z"})).await.expect(202);
        home
    }

    /// A new key with these scopes: its id and its text.
    pub async fn new_key(&self, app: &App, scopes: Value) -> (String, String) {
        let uri = format!("/v1/tenants/{}/keys", self.slug);
        let created = app.post(&uri, json!({"name": "a key", "scopes": scopes})).await.expect(201);
        (text(&created["id"]).to_owned(), text(&created["key"]).to_owned())
    }

    /// The API takes none that has expired already.
    async fn expired_key(&self, app: &App) -> String {
        let key = new_key(&SystemEntropy);
        let at = app.clock.now();
        let expired = ApiKey {
            id: KeyId::new(at, &SystemEntropy),
            tenant_id: self.id,
            hash: KeyHash::of(key.reveal().as_bytes()),
            hint: key.reveal()[..HINT_CHARS].to_owned(),
            name: "expired".to_owned(),
            scopes: Scopes::all(),
            created_at: at,
            expires_at: Some(at - Duration::from_secs(1)),
            last_used_at: None,
        };
        assert!(app.store.create_key(self.id, &expired).await.unwrap());
        key.reveal().to_owned()
    }

    /// With the key that may do everything.
    pub async fn ask(&self, app: &App, method: &str, uri: &str, body: &Value) -> Reply {
        ask(&app.router, &self.key, method, uri, &[], body).await
    }

    pub async fn destination(&self, app: &App) -> String {
        // What is posted on the way does not go to all of them.
        let body = json!({"url": "http://127.0.0.1:9999/", "event_types": ["made.for.it"]});
        let created = self.ask(app, "POST", "/v1/destinations", &body).await;
        text(&created.expect(201)["id"]).to_owned()
    }

    /// A new event with a delivery to that destination: the ids of both.
    pub async fn event(&self, app: &App, destination: &str) -> (String, String) {
        let now = app.clock.now();
        let (event, deliveries) = app.event_at(now, self.id, EventMeta::default(), None, &[destination]).await;
        (event, deliveries[0].clone())
    }

    pub async fn dead_letter(&self, app: &App, destination: &str) -> String {
        let (_, delivery) = self.event(app, destination).await;
        app.attempted_in(self.id, &delivery, Next::Dead { reason: DeadReason::Exhausted }).await;
        delivery
    }

    /// Everything that the operator can see of it.
    pub async fn seen(&self, app: &App) -> Vec<String> {
        let mut all = Vec::new();
        for list in ["destinations", "events", "deliveries", "attempts", "dead-letters", "replays", "audit-log"] {
            let headers = [("signalpost-tenant", self.slug.as_str())];
            let seen = ask(&app.router, KEY, "GET", &format!("/v1/{list}?limit=250"), &headers, &Value::Null).await;
            let seen = seen.expect(200);
            assert_eq!(seen["next_cursor"], Value::Null, "{list} has more than one page");
            all.push(seen.to_string());
        }
        all.push(app.get(&format!("/v1/tenants/{}", self.slug)).await.expect(200).to_string());
        let mut keys = app.get(&format!("/v1/tenants/{}/keys", self.slug)).await.expect(200);
        // Written once a minute, whoever looks.
        keys["data"].as_array_mut().unwrap().iter_mut().for_each(|key| key["last_used_at"] = Value::Null);
        all.push(keys.to_string());
        all
    }

    /// Every id that is its own.
    pub async fn ids(&self, app: &App) -> BTreeSet<String> {
        let seen = self.seen(app).await.concat();
        let words = seen.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_id = |word: &&str| word.len() == 30 && word.as_bytes()[3] == b'_';
        let ids: BTreeSet<String> = words.filter(is_id).map(str::to_owned).collect();
        assert!(ids.len() > 10, "{ids:?}");
        ids
    }
}
