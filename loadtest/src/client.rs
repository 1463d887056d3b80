//! Our HTTP API, from the side of a producer and of an operator. Straight on hyper: the client is on the same machine as
//! what it measures, and should cost little of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use crate::created::Created;

/// How long an answer may take: what is silent for longer is not waited for.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Talks to the API services in turn. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Api {
    http: Client<HttpConnector, Full<Bytes>>,
    bases: Arc<[String]>,
    key: Arc<str>,
    tenant: Option<Arc<str>>,
    turn: Arc<AtomicUsize>,
    created: Created,
}

impl Api {
    /// A client of the services at those addresses, with a key.
    pub fn new(bases: Vec<String>, key: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1024).build(connector);
        Self {
            http,
            bases: bases.into(),
            key: key.into(),
            tenant: None,
            turn: Arc::default(),
            created: Created::default(),
        }
    }

    /// The same, that notes what it creates there.
    #[must_use]
    pub fn noting(self, created: Created) -> Self {
        Self { created, ..self }
    }

    /// Host and port of the first service.
    pub fn address(&self) -> &str {
        self.bases.first().map_or("", |base| base.trim_start_matches("http://"))
    }

    /// Host and port of every service.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.bases.iter().map(|base| base.trim_start_matches("http://"))
    }

    /// The same, acting in that tenant.
    pub fn in_tenant(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.into()), ..self.clone() }
    }

    /// One request to the next service in turn: status and body.
    ///
    /// # Errors
    /// It did not answer in time.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        idempotency_key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let base = &self.bases[self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len()];
        self.request_at(base, method, path, body, idempotency_key).await
    }

    async fn request_at(
        &self,
        base: &str,
        method: Method,
        path: &str,
        body: Bytes,
        idempotency_key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("signalpost-tenant", &**tenant);
        }
        let request = request.body(Full::new(body))?;
        let answered = async {
            let answer = self.http.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let answered = tokio::time::timeout(TIMEOUT, answered).await;
        answered.with_context(|| format!("{base}{path}: no answer within {TIMEOUT:?}"))?
    }

    /// A request whose answer must be a success; its JSON (null where it is empty).
    ///
    /// # Errors
    /// It is none, with what was said.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let sent = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (status, answer) = self.request(method.clone(), path, sent, None).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).context("an answer that is not JSON")
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, &Value::Null).await
    }

    /// Creates a destination, with further members as given; its id.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_destination(&self, url: &str, event_type: &str, further: &Value) -> anyhow::Result<String> {
        let body = destination(url, event_type, further);
        let created = self.call(Method::POST, "/v1/destinations", &body).await?;
        let id = created["id"].as_str().context("a destination without an id")?;
        // Those of a tenant are deleted with it.
        if self.tenant.is_none() {
            self.created.note(destination_path(id));
        }
        Ok(id.to_owned())
    }

    /// Creates a tenant of that name, with further members as given; its first key, which has all scopes.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_tenant(&self, slug: &str, further: &Value) -> anyhow::Result<String> {
        let body = with(json!({"name": slug, "slug": slug}), further);
        let created = self.call(Method::POST, "/v1/tenants", &body).await?;
        self.created.note(format!("/v1/tenants/{slug}"));
        Ok(created["key"].as_str().context("a tenant without a key")?.to_owned())
    }

    /// Deletes a destination; what waits for it is cancelled in the background.
    ///
    /// # Errors
    /// It is refused.
    pub async fn delete_destination(&self, id: &str) -> anyhow::Result<()> {
        let path = destination_path(id);
        self.delete(&path).await?;
        self.created.forget(&path);
        Ok(())
    }

    /// Deletes what is at that path; what is gone already is deleted.
    ///
    /// # Errors
    /// It is refused.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let (status, answer) = self.request(Method::DELETE, path, Bytes::new(), None).await?;
        if !status.is_success() && status != StatusCode::NOT_FOUND {
            bail!("DELETE {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }

    /// Whether a destination has no delivery left that could still be sent.
    ///
    /// # Errors
    /// The API did not answer.
    pub async fn is_settled(&self, destination: &str) -> anyhow::Result<bool> {
        for status in ["pending", "retrying"] {
            let open =
                self.get(&format!("/v1/deliveries?destination_id={destination}&status={status}&limit=1")).await?;
            if open["data"] != json!([]) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether every API service says that it is ready.
    pub async fn is_ready(&self) -> bool {
        for base in self.bases.iter() {
            match self.request_at(base, Method::GET, "/health/ready", Bytes::new(), None).await {
                Ok((status, _)) if status.is_success() => {}
                _ => return false,
            }
        }
        true
    }
}

fn destination_path(id: &str) -> String {
    format!("/v1/destinations/{id}")
}

/// What is asked for a destination, with further members as given.
pub fn destination(url: &str, event_type: &str, further: &Value) -> Value {
    with(json!({"name": event_type, "url": url, "event_types": [event_type]}), further)
}

fn with(mut body: Value, further: &Value) -> Value {
    if let (Some(body), Some(further)) = (body.as_object_mut(), further.as_object()) {
        body.extend(further.clone());
    }
    body
}
