//! A client of our HTTP API, as a producer or an operator would write it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Talks to one API service.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Client {
    /// A client of the service at `base`, with the operator's key.
    pub fn new(base: &str, key: &str) -> Self {
        // Only the first of several calls installs it.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .expect("a client without special settings");
        Self { http, base: base.to_owned(), key: key.to_owned() }
    }

    /// One request; its status and its body (null where that is empty).
    ///
    /// # Errors
    /// The service did not answer, or not with JSON.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).context("an answer that is not JSON")?
        };
        Ok((status, value))
    }

    /// The value of a header in the answer to a request, with its status.
    ///
    /// # Errors
    /// The service did not answer.
    pub async fn header_of(
        &self,
        path: &str,
        body: &Value,
        name: &str,
    ) -> anyhow::Result<(StatusCode, Option<String>)> {
        let answer = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.key).json(body).send().await?;
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((answer.status(), value))
    }

    async fn expect(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, value) = self.request(method.clone(), path, body, &[]).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {value}");
        }
        Ok(value)
    }

    /// GET; the answer must be a success.
    ///
    /// # Errors
    /// It is not.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.expect(Method::GET, path, None).await
    }

    /// POST; the answer must be a success.
    ///
    /// # Errors
    /// It is not.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.expect(Method::POST, path, Some(body)).await
    }

    /// PATCH; the answer must be a success.
    ///
    /// # Errors
    /// It is not.
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.expect(Method::PATCH, path, Some(body)).await
    }

    /// Creates a destination for everything, with further members as given; the whole answer.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_destination(&self, url: &str, further: Value) -> anyhow::Result<Value> {
        let mut body = json!({"name": "test", "url": url});
        if let (Some(body), Value::Object(further)) = (body.as_object_mut(), further) {
            body.extend(further);
        }
        self.post("/v1/destinations", &body).await
    }

    /// Posts one event until it is accepted, with an idempotency key, as a producer does that must not lose it: any error
    /// and any 5xx is tried again until the deadline.
    ///
    /// # Errors
    /// It was refused, or the deadline passed.
    pub async fn post_event_surely(&self, event: &Value, key: &str, within: Duration) -> anyhow::Result<Value> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let said = match self.request(Method::POST, "/v1/events", Some(event), &[("idempotency-key", key)]).await {
                Ok((StatusCode::ACCEPTED, answer)) => return Ok(answer),
                Ok((status, answer)) if status.is_server_error() => format!("{status}: {answer}"),
                Ok((status, answer)) => bail!("refused: {status}: {answer}"),
                Err(error) => format!("{error:#}"),
            };
            if tokio::time::Instant::now() > deadline {
                bail!("not accepted within {within:?}; last: {said}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The value of a metric (the sum over its labels).
    ///
    /// # Errors
    /// The service did not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.http.get(format!("{}/metrics", self.base)).bearer_auth(&self.key).send().await?.text().await?;
        Ok(text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }
}
