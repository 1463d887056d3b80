//! The client: one exchange with a destination, bounded in time and size.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use signalpost_core::{Clock, DeliveryId, Destination, Entropy, Event, Timestamp, classify::Answer, destination};
use signalpost_vault::KeyRing;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{
    EgressPolicy, EgressProxy, ExtraRoots, UrlDenied, body,
    failure::{Failure, explain},
    headers,
    proxy::Way,
    resolver::{self, Resolver},
    retry_after,
    secrets::{NoSecrets, Opened, Secrets},
};

/// At most so much of a response is read; then the connection is given up.
const READ_BYTES: usize = 16 * 1024;
/// At most so much of a response's body is kept.
const KEPT_BYTES: usize = 4 * 1024;

/// At most so many bytes of headers are sent. Placeholders are filled in when a request is made, so a destination's headers
/// may grow beyond what they may have when they are set.
const HEADER_BYTES: usize = 64 * 1024;

/// How the client works.
#[derive(Debug, Clone)]
pub struct SenderSettings {
    /// What may be reached.
    pub egress: EgressPolicy,
    /// Measures exchanges.
    pub clock: Arc<dyn Clock>,
    /// Makes span ids.
    pub entropy: Arc<dyn Entropy>,
    /// Idle connections kept per host.
    pub max_idle_per_host: usize,
    /// How long an idle connection is kept. Shorter than what servers commonly keep (60 s and more), so that we close first.
    pub idle_timeout: Duration,
    /// Opens the secrets of destinations.
    pub vault: Arc<KeyRing>,
    /// The certificates that are trusted besides the roots of the web.
    pub extra_roots: ExtraRoots,
    /// The only way to destinations; None: directly. Proxies that the environment names are never used.
    pub proxy: Option<EgressProxy>,
}

impl SenderSettings {
    /// The usual ones.
    pub fn new(egress: EgressPolicy, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, vault: Arc<KeyRing>) -> Self {
        let idle_timeout = Duration::from_secs(50);
        let extra_roots = ExtraRoots::default();
        Self { egress, clock, entropy, max_idle_per_host: 128, idle_timeout, vault, extra_roots, proxy: None }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// One request that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to and how.
    pub destination: &'a Destination,
    /// What.
    pub event: &'a Event,
    /// Shown to the receiver.
    pub delivery_id: DeliveryId,
    /// From 1; shown to the receiver.
    pub attempt: u32,
    /// The time of day that is signed.
    pub at: Timestamp,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// For [`signalpost_core::classify::judge`].
    pub answer: Answer,
    /// Of the response, where its head arrived.
    pub status_code: Option<u16>,
    /// At most 4 KiB of its body.
    pub response_excerpt: Bytes,
    /// What went wrong, for the destination's owner: no internal address, no secret.
    pub error: Option<String>,
    /// From the start until the end of the body, or until the failure.
    pub duration: Duration,
}

type HttpClient = Client<HttpsConnector<Way>, Full<Bytes>>;

/// A request that is about to be made.
struct Prepared<'a> {
    client: &'a HttpClient,
    request: Request<Full<Bytes>>,
    secrets: Arc<Opened>,
}

/// Talks to destinations. Share it in an `Arc`: it holds the pools of connections.
#[derive(Debug)]
pub struct Sender {
    egress: Arc<EgressPolicy>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    secrets: Secrets,
    /// For `https:`. The two differ in what their resolver lets through.
    tls: HttpClient,
    /// For `http:`.
    plain: HttpClient,
}

impl Sender {
    /// A client without connections.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(settings: SenderSettings) -> Result<Self, SenderError> {
        Self::with_source(settings, resolver::system())
    }

    fn with_source(settings: SenderSettings, source: resolver::Source) -> Result<Self, SenderError> {
        let SenderSettings { egress, clock, entropy, max_idle_per_host, idle_timeout, vault, extra_roots, proxy } =
            settings;
        let egress = Arc::new(egress);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(extra_roots.with_the_webs()?).with_no_client_auth();
        let build = |resolver: Resolver| {
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_http1()
                .wrap_connector(Way::new(resolver, proxy.as_ref()));
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(idle_timeout)
                .pool_max_idle_per_host(max_idle_per_host)
                .http1_max_buf_size(READ_BYTES)
                // A connection that was closed while it was idle, noticed before a byte of the request was written, is no
                // failure of the destination: the request goes out on another one.
                .retry_canceled_requests(true)
                .build(connector)
        };
        let resolver = Resolver::new(Arc::clone(&egress), Arc::clone(&clock), source);
        Ok(Self {
            plain: build(resolver.plain()),
            tls: build(resolver),
            egress,
            clock,
            entropy,
            secrets: Secrets::new(vault),
        })
    }

    /// What it may reach.
    pub fn egress(&self) -> &EgressPolicy {
        &self.egress
    }

    /// The keys of secrets at rest.
    pub const fn vault(&self) -> &Arc<KeyRing> {
        self.secrets.vault()
    }

    /// Makes one request. Never fails: every failure is an answer.
    pub async fn send(&self, outgoing: &Outgoing<'_>) -> Exchange {
        let started = self.clock.elapsed();
        let deadline = Instant::now() + outgoing.destination.spec.timeout();
        let mut exchange = match self.prepare(outgoing) {
            Ok(prepared) => self.exchange(prepared, deadline, outgoing).await,
            Err(exchange) => exchange,
        };
        exchange.duration = self.clock.elapsed().saturating_sub(started);
        exchange
    }

    /// Everything before the first byte.
    fn prepare(&self, outgoing: &Outgoing<'_>) -> Result<Prepared<'_>, Exchange> {
        let destination = outgoing.destination;
        let spec = &destination.spec;
        let url = self.egress.check_url(&spec.url).map_err(|error| denied(&error))?;
        let uri = uri_of(&url).ok_or_else(|| broken("the URL cannot be used"))?;
        let secrets = self.secrets.of(destination).map_err(|error| match error {
            NoSecrets::Closed(error) => {
                tracing::error!(destination.id = %destination.id, %error, "the secrets of a destination cannot be read");
                broken("the signing secret cannot be read")
            }
            NoSecrets::Unfit(error) => {
                tracing::warn!(destination.id = %destination.id, %error, "the secret of a destination cannot sign");
                broken("the signing secret is not valid")
            }
        })?;
        let body = body::build(outgoing.event, spec.body_format);
        let headers = headers::build(outgoing, &secrets, &body, &*self.entropy);
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > HEADER_BYTES {
            return Err(broken("the headers of the request are too large"));
        }
        let mut request = Request::new(Full::new(body.bytes));
        *request.method_mut() = match spec.method {
            destination::Method::Post => Method::POST,
            destination::Method::Put => Method::PUT,
            destination::Method::Patch => Method::PATCH,
        };
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(Prepared { client: if url.scheme() == "https" { &self.tls } else { &self.plain }, request, secrets })
    }

    async fn exchange(&self, prepared: Prepared<'_>, deadline: Instant, outgoing: &Outgoing<'_>) -> Exchange {
        let Prepared { client, request, secrets } = prepared;
        let response = match timeout_at(deadline, client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return timed_out(outgoing),
        };
        let code = response.status().as_u16();
        let retry_after = retry_after::read(response.headers(), self.clock.now());
        let mut excerpt = Vec::new();
        let most = KEPT_BYTES + secrets.scrubber.longest();
        let ended = timeout_at(deadline, read(response, &mut excerpt, most)).await;
        secrets.scrubber.scrub(&mut excerpt);
        excerpt.truncate(KEPT_BYTES);
        let exchange = match ended {
            Ok(Ok(())) => Exchange { answer: Answer::Status { code, retry_after }, error: None, ..broken("") },
            Ok(Err(_)) => broken("the response was cut off"),
            Err(_) => timed_out(outgoing),
        };
        Exchange { status_code: Some(code), response_excerpt: excerpt.into(), ..exchange }
    }
}

/// Reads a body to its end or to the bound, whichever comes first; keeps `most` bytes of it. What is not read to its end takes
/// its connection with it.
async fn read(response: Response<Incoming>, kept: &mut Vec<u8>, most: usize) -> Result<(), hyper::Error> {
    let mut body = response.into_body();
    let mut seen = 0;
    while seen < READ_BYTES
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            seen += data.len();
            let room = most.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok(())
}

fn uri_of(url: &Url) -> Option<Uri> {
    // `Uri` has no place for a fragment, and none is ever sent.
    let text = url.as_str();
    text.split_once('#').map_or(text, |(before, _)| before).parse().ok()
}

fn broken(text: &str) -> Exchange {
    Exchange {
        answer: Answer::Unreachable,
        status_code: None,
        response_excerpt: Bytes::new(),
        error: Some(text.to_owned()),
        duration: Duration::ZERO,
    }
}

fn timed_out(outgoing: &Outgoing<'_>) -> Exchange {
    broken(&format!("timed out after {} ms", outgoing.destination.spec.timeout_ms))
}

fn denied(error: &UrlDenied) -> Exchange {
    Exchange { answer: Answer::EgressDenied, ..broken(&error.to_string()) }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Exchange {
    match explain(error) {
        Failure::Denied(error) => denied(&error),
        Failure::Broken(text) => broken(text),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
