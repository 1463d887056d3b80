//! The client: one exchange with a destination, bounded in time and size.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnectorBuilder;
use signalpost_core::{Clock, DeliveryId, Destination, Entropy, Event, Timestamp, classify::Answer, destination};
use signalpost_vault::KeyRing;
use tokio::time::{Instant, timeout_at};

use crate::{
    EgressPolicy, EgressProxy, ExtraRoots, UrlDenied, body,
    failure::{Failure, explain},
    headers,
    plan::{NoPlan, Plan, Plans},
    pool::{Connection, Host, Pool, Unanswered},
    proxy::Way,
    resolver::{self, Resolver},
    retry_after,
    secrets::NoSecrets,
};

/// At most so much of a response is read; then the connection is given up.
pub(crate) const READ_BYTES: usize = 16 * 1024;
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
    /// Idle connections kept in all: each takes a file descriptor.
    pub max_idle: usize,
    /// How long an idle connection is kept. Shorter than what servers commonly keep (60 s and more), so that we close first.
    pub idle_timeout: Duration,
    /// How long the addresses of a name are tried, all together, until one takes a connection; each has its part of it. A request's own
    /// time-out holds besides.
    pub connect_timeout: Duration,
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
        Self {
            egress,
            clock,
            entropy,
            max_idle_per_host: 128,
            max_idle: 2048,
            idle_timeout: Duration::from_secs(50),
            connect_timeout: Duration::from_secs(5),
            vault,
            extra_roots: ExtraRoots::default(),
            proxy: None,
        }
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
    /// The trace context of the span that this request is, where spans are exported. None: the event's trace goes on with
    /// a span that nobody exports.
    pub traceparent: Option<&'a str>,
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

/// A request that is about to be made.
struct Prepared {
    plan: Arc<Plan>,
    request: Request<Full<Bytes>>,
}

/// What has arrived of a response.
#[derive(Default)]
struct Arrived {
    /// Status code and `Retry-After`.
    head: Option<(u16, Option<Duration>)>,
    excerpt: Vec<u8>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Talks to destinations. Share it in an `Arc`: it holds the pools of connections.
#[derive(Debug)]
pub struct Sender {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    plans: Plans,
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
        let SenderSettings {
            egress,
            clock,
            entropy,
            max_idle_per_host,
            max_idle,
            idle_timeout,
            connect_timeout,
            vault,
            extra_roots,
            proxy,
        } = settings;
        let egress = Arc::new(egress);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(extra_roots.with_the_webs()?).with_no_client_auth();
        let connector = |resolver: Resolver| {
            HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_http1()
                .wrap_connector(Way::new(resolver, proxy.as_ref(), connect_timeout))
        };
        let resolver = Resolver::new(Arc::clone(&egress), Arc::clone(&clock), source);
        let plain = connector(resolver.plain());
        let pool = Pool::new(max_idle_per_host, max_idle, idle_timeout);
        Ok(Self { clock, entropy, plans: Plans::new(egress, vault, pool, connector(resolver), plain) })
    }

    /// What it may reach.
    pub fn egress(&self) -> &EgressPolicy {
        &self.plans.egress
    }

    /// The keys of secrets at rest.
    pub const fn vault(&self) -> &Arc<KeyRing> {
        &self.plans.vault
    }

    /// Makes one request. Never fails: every failure is an answer. Dropped before its end, it closes its connection.
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
    fn prepare(&self, outgoing: &Outgoing<'_>) -> Result<Prepared, Exchange> {
        let destination = outgoing.destination;
        let spec = &destination.spec;
        let plan = self.plans.of(destination).map_err(|error| match error {
            NoPlan::Denied(error) => denied(&error),
            NoPlan::Unusable => broken("the URL cannot be used"),
            NoPlan::Secrets(NoSecrets::Closed(error)) => {
                tracing::error!(destination.id = %destination.id, %error, "the secrets of a destination cannot be read");
                broken("the signing secret cannot be read")
            }
            NoPlan::Secrets(NoSecrets::Unfit(error)) => {
                tracing::warn!(destination.id = %destination.id, %error, "the secret of a destination cannot sign");
                broken("the signing secret is not valid")
            }
        })?;
        let id = outgoing.event.id.to_string();
        let body = body::with_id(outgoing.event, &id, spec.body_format);
        let headers = headers::build(outgoing, &plan, id, &body, &*self.entropy);
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
        *request.uri_mut() = plan.target.clone();
        *request.headers_mut() = headers;
        Ok(Prepared { plan, request })
    }

    async fn exchange(&self, prepared: Prepared, deadline: Instant, outgoing: &Outgoing<'_>) -> Exchange {
        let Prepared { plan, request } = prepared;
        let scrubber = &plan.opened.scrubber;
        let mut arrived = Arrived::default();
        let most = KEPT_BYTES + scrubber.longest();
        let ended = timeout_at(deadline, self.carry(&plan.host, request, &mut arrived, most)).await;
        let Arrived { head, mut excerpt } = arrived;
        let Some((code, retry_after)) = head else {
            return match ended {
                Ok(Err(error)) => failed(&*error),
                Ok(Ok(())) | Err(_) => timed_out(outgoing),
            };
        };
        scrubber.scrub(&mut excerpt);
        excerpt.truncate(KEPT_BYTES);
        let exchange = match ended {
            Ok(Ok(())) => Exchange { answer: Answer::Status { code, retry_after }, error: None, ..broken("") },
            Ok(Err(_)) => broken("the response was cut off"),
            Err(_) => timed_out(outgoing),
        };
        Exchange { status_code: Some(code), response_excerpt: excerpt.into(), ..exchange }
    }

    /// Brings the request there and the response back.
    async fn carry(
        &self,
        host: &Host,
        request: Request<Full<Bytes>>,
        arrived: &mut Arrived,
        most: usize,
    ) -> Result<(), BoxError> {
        let (mut connection, response) = ask(host, request).await?;
        arrived.head = Some((response.status().as_u16(), retry_after::read(response.headers(), || self.clock.now())));
        if read(&mut connection, response.into_body(), &mut arrived.excerpt, most).await? {
            host.keep(connection);
        }
        Ok(())
    }
}

/// Sends a request over a connection that is idle, or over a new one.
async fn ask(
    host: &Host,
    mut request: Request<Full<Bytes>>,
) -> Result<(Box<Connection>, Response<Incoming>), BoxError> {
    while let Some(mut connection) = host.idle() {
        match connection.ask(request).await {
            Ok(response) => return Ok((connection, response)),
            // It was closed while it was idle, which is no failure of the destination: the next one.
            Err(Unanswered::Unsent(unsent, _)) => request = *unsent,
            Err(Unanswered::Broken(error)) => return Err(error.into()),
        }
    }
    // On the heap: it is large and seldom.
    let mut connection = Box::pin(host.connect()).await?;
    match connection.ask(request).await {
        Ok(response) => Ok((connection, response)),
        Err(Unanswered::Unsent(_, error) | Unanswered::Broken(error)) => Err(error.into()),
    }
}

/// Reads a body to its end or to the bound, whichever comes first; keeps `most` bytes of it. Whether it was read to its end: what is not
/// takes its connection with it.
async fn read(
    connection: &mut Connection,
    mut body: Incoming,
    kept: &mut Vec<u8>,
    most: usize,
) -> Result<bool, hyper::Error> {
    let mut seen = 0;
    while !body.is_end_stream() {
        if seen >= READ_BYTES {
            return Ok(false);
        }
        let Some(frame) = connection.frame(&mut body).await else { break };
        if let Ok(data) = frame?.into_data() {
            seen += data.len();
            let room = most.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok(true)
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
