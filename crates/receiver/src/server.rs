//! Treats requests as the faults say.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioTimer;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use signalpost_core::Clock;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Failure, Faults, Observer, Received, ReceiverSettings, Verdict, Verifier,
    answer::{self, Body},
    connections, control,
    log::{Begun, Log},
    verdict::judge,
};

/// Larger bodies are refused with 413.
const MOST_BODY_BYTES: usize = 64 * 1024 * 1024;

/// What all connections share.
pub(crate) struct Server {
    pub log: Log,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    reject_invalid: bool,
    echo: bool,
    control: bool,
    observer: Option<Observer>,
}

/// What may change while it runs.
struct State {
    faults: Faults,
    faults_at: HashMap<String, Faults>,
    sender: Option<Verifier>,
    sender_at: HashMap<String, Verifier>,
    random: StdRng,
}

impl Server {
    pub fn new(settings: ReceiverSettings, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let state = State {
            faults: settings.faults,
            faults_at: HashMap::new(),
            sender: match (parse(settings.secret.as_deref())?, settings.verifier) {
                (Some(standard), Some(more)) => Some(standard.and(more)),
                (one, other) => one.or(other),
            },
            sender_at: HashMap::new(),
            random: StdRng::seed_from_u64(settings.seed),
        };
        Ok(Self {
            log: Log::new(settings.keep, settings.most_ids),
            clock,
            state: Mutex::new(state),
            reject_invalid: settings.reject_invalid,
            echo: settings.echo,
            control: settings.control,
            observer: settings.observer,
        })
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    pub fn faults(&self) -> Faults {
        self.state().faults.clone()
    }

    pub fn set_faults_at(&self, path: &str, faults: Option<Faults>) {
        let mut state = self.state();
        match faults {
            Some(faults) => state.faults_at.insert(path.to_owned(), faults),
            None => state.faults_at.remove(path),
        };
    }

    pub fn set_secret(&self, secret: Option<&str>) -> io::Result<()> {
        self.set_verifier(parse(secret)?);
        Ok(())
    }

    pub fn set_verifier(&self, verifier: Option<Verifier>) {
        self.state().sender = verifier;
    }

    pub fn set_secret_at(&self, path: &str, secret: &str) -> io::Result<()> {
        if let Some(sender) = parse(Some(secret))? {
            self.state().sender_at.insert(path.to_owned(), sender);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self, path: &str) -> Option<Verifier> {
        let state = self.state();
        state.sender_at.get(path).or(state.sender.as_ref()).cloned()
    }

    /// What the next request at that path gets: the faults, and whether it fails.
    fn decide(&self, path: &str, earlier: u32) -> (Faults, bool) {
        let mut state = self.state();
        let faults = state.faults_at.get(path).unwrap_or(&state.faults).clone();
        let fails = earlier < faults.first || (faults.rate > 0.0 && state.random.random::<f64>() < faults.rate);
        (faults, fails)
    }
}

fn parse(secret: Option<&str>) -> io::Result<Option<Verifier>> {
    let parse = |text| Verifier::standard(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error));
    secret.map(parse).transpose()
}

/// Serves until it is told to stop.
pub(crate) async fn accept(listener: TcpListener, server: Arc<Server>, stop: CancellationToken, tasks: TaskTracker) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let treat = move |request, reset| treat(Arc::clone(&server), request, reset);
    connections::serve(listener, http, stop, tasks, treat).await;
}

/// A request in progress. Its end is noted when it is answered, or when it is dropped because its client has gone.
struct InProgress {
    server: Arc<Server>,
    begun: Begun,
    began: Duration,
    received: Option<Received>,
}

impl InProgress {
    /// The headers of the request, a line each.
    fn echo(&self) -> Bytes {
        let headers = self.received.iter().flat_map(|received| &received.headers);
        headers
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
            .collect::<String>()
            .into()
    }

    fn end(&mut self, status: Option<u16>) {
        let Some(mut received) = self.received.take() else { return };
        received.status = status;
        received.took = self.server.clock.elapsed().saturating_sub(self.began);
        let received = Arc::new(received);
        if let Some(observer) = &self.server.observer {
            observer(&received);
        }
        self.server.log.end(&self.begun, received);
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.end(None);
    }
}

async fn treat(
    server: Arc<Server>,
    request: Request<Incoming>,
    reset: CancellationToken,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MOST_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Ok(answer::plain(413, "")),
        // The client went before its request was complete: nothing arrived.
        Err(_) => return Ok(answer::plain(400, "")),
    };
    let path = head.uri.path().to_owned();
    if server.control && path.starts_with(control::PREFIX) {
        return Ok(control::answer(&server, &head.method, &path, &body));
    }
    let (request, verdict) = begin(&server, head, &path, body);
    Ok(answer(request, verdict, &path, &reset).await)
}

/// Judges and notes a request that has been read.
fn begin(server: &Arc<Server>, head: http::request::Parts, path: &str, body: Bytes) -> (InProgress, Verdict) {
    let began = server.clock.elapsed();
    let at = server.clock.now();
    let verdict = judge(server.sender(path).as_slice(), &head.headers, &body, at.as_secs());
    let received = Received {
        at,
        took: Duration::ZERO,
        method: head.method,
        path: head.uri.path_and_query().map_or_else(|| path.to_owned(), ToString::to_string),
        headers: head.headers,
        body,
        verdict: verdict.clone(),
        status: None,
    };
    let begun = server.log.begin(received.webhook_id(), received.delivery_id(), received.attempt(), began);
    (InProgress { server: Arc::clone(server), begun, began, received: Some(received) }, verdict)
}

/// Does what the faults say.
async fn answer(mut request: InProgress, verdict: Verdict, path: &str, reset: &CancellationToken) -> Response<Body> {
    let (faults, fails) = request.server.decide(path, request.begun.earlier);
    if faults.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.latency_ms)).await;
    }
    if request.server.reject_invalid && matches!(verdict, Verdict::Invalid(_)) {
        request.end(Some(401));
        return answer::plain(401, format!("{verdict}\n"));
    }
    if !fails {
        let body = if request.server.echo { request.echo() } else { "ok\n".into() };
        request.end(Some(200));
        return answer::plain(200, body);
    }
    let mut response = match &faults.failure {
        Failure::Status(status) => answer::plain(*status, format!("the receiver was told to answer {status}\n")),
        Failure::Drip { status, bytes, pause_ms } => {
            answer::dripping(*status, *bytes, Duration::from_millis(*pause_ms))
        }
        Failure::BigBody { status, bytes } => answer::big(*status, *bytes),
        Failure::Redirect(location) => redirect(location),
        Failure::Reset => {
            request.end(None);
            reset.cancel();
            return std::future::pending().await;
        }
        // Until the client goes, or the receiver is stopped: then `request` is dropped and its end noted.
        Failure::Hang => return std::future::pending().await,
    };
    if let Some(seconds) = faults.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    request.end(Some(response.status().as_u16()));
    response
}

fn redirect(location: &str) -> Response<Body> {
    let mut response = answer::plain(302, "");
    match HeaderValue::from_str(location) {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => answer::plain(500, "the receiver was told to redirect to what is no URL\n"),
    }
}
