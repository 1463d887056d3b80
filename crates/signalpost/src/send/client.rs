//! Posts requests, repeats them under one idempotency key, and reads what became of each event.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use indicatif::ProgressBar;
use reqwest::{StatusCode, header};
use serde::{Deserialize, de::IgnoredAny};
use signalpost_core::Entropy as _;
use signalpost_runtime::SystemEntropy;
use tokio::time::Instant;
use url::Url;

use super::{client_retry::pause, pace::Request, signer::Signer};
use signalpost_wiring::Failure;

/// Longer than the API's own time-outs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted now.
    Accepted,
    /// Accepted before, by its `uid`.
    Duplicate,
    /// The line is no event, so it was not sent.
    Broken(String),
    /// The API refused it.
    Refused(String),
    /// It was not accepted in time; it may have been.
    Unknown(String),
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Answer {
    /// Line numbers and outcomes.
    pub outcomes: Vec<(u64, Outcome)>,
    /// How far the input has been read by its last line.
    pub position: u64,
    /// No request can succeed: the key is wrong, or nobody speaks this API there.
    pub fatal: Option<String>,
}

/// Talks to one Signalpost.
pub struct Client {
    http: reqwest::Client,
    single: Url,
    batch: Url,
    run: String,
    signer: Option<Signer>,
    give_up_after: Duration,
    waiting: AtomicBool,
    /// When a request was last answered; before the first, when all began.
    answered: Mutex<Instant>,
}

/// What one try came to.
enum Try {
    Answered(Vec<Outcome>),
    Fatal(String),
    Again { why: String, after: Option<Duration> },
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct BatchAnswer {
    results: Vec<BatchResult>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BatchResult {
    Refused { error: Problem },
    Accepted(Accepted),
}

#[derive(Deserialize, Default)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    detail: String,
}

impl Problem {
    fn text(&self) -> String {
        if self.errors.is_empty() {
            return self.detail.clone().unwrap_or_else(|| self.title.clone());
        }
        let errors: Vec<_> = self.errors.iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect();
        errors.join("; ")
    }
}

impl Client {
    pub fn new(url: &str, key: &str, signer: Option<Signer>, give_up_after: Duration) -> Result<Self, Failure> {
        let base = Url::parse(url.trim_end_matches('/'))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Failure::setting(format!("--url {url}: not an http or https URL")))?;
        let join = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
            url
        };
        let mut authorization = header::HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| Failure::setting("the API key has characters that no header can carry"))?;
        authorization.set_sensitive(true);
        // One TLS stack, with ring; already set where this process did so before.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("signalpost-send/", env!("CARGO_PKG_VERSION")))
            .default_headers([(header::AUTHORIZATION, authorization)].into_iter().collect())
            .build()
            .context("cannot build the HTTP client")?;
        let mut run = [0; 8];
        SystemEntropy.fill(&mut run);
        let run = format!("{:016x}", u64::from_be_bytes(run));
        Ok(Self {
            http,
            single: join("/v1/events"),
            batch: join("/v1/events/batch"),
            run,
            signer,
            give_up_after,
            waiting: AtomicBool::new(false),
            answered: Mutex::new(Instant::now()),
        })
    }

    /// Posts until it is answered, or given up.
    pub async fn post(&self, request: Request, progress: &ProgressBar) -> Answer {
        let mut answer = Answer { position: request.position, ..Answer::default() };
        if !request.events.is_empty() {
            match self.repeat(&request, progress).await {
                Ok(outcomes) => {
                    answer.outcomes = request.events.iter().map(|(line, _)| *line).zip(outcomes).collect();
                }
                Err(reason) => answer.fatal = Some(reason),
            }
        }
        answer.outcomes.extend(request.broken.into_iter().map(|(line, wrong)| (line, Outcome::Broken(wrong))));
        answer.outcomes.sort_by_key(|(line, _)| *line);
        answer
    }

    /// The outcomes in the order of the events; an error where no request can succeed.
    async fn repeat(&self, request: &Request, progress: &ProgressBar) -> Result<Vec<Outcome>, String> {
        let began = Instant::now();
        let mut tries = 0_u32;
        loop {
            tries += 1;
            let (why, after) = match self.attempt(request, tries > 1).await {
                Try::Answered(outcomes) => {
                    *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    self.waiting.store(false, Ordering::Relaxed);
                    return Ok(outcomes);
                }
                Try::Fatal(reason) => return Err(reason),
                Try::Again { why, after } => (why, after),
            };
            if !self.waiting.swap(true, Ordering::Relaxed) {
                let most = self.give_up_after.as_secs();
                progress.suspend(|| {
                    eprintln!("signalpost: {why}; trying again until nothing was accepted for {most} s");
                });
            }
            if !self.wait(began, pause(tries, after, &SystemEntropy), after).await {
                let most = self.give_up_after.as_secs();
                let why = format!("{why}; nothing was accepted for {most} s");
                return Ok(vec![Outcome::Unknown(why); request.events.len()]);
            }
        }
    }

    /// Waits before the next try, but no longer than until it is given up: then there is one last try, unless the server
    /// asked not to come back so early. False: it is given up. Other requests that are answered meanwhile put that off.
    async fn wait(&self, began: Instant, pause: Duration, asked: Option<Duration>) -> bool {
        let now = Instant::now();
        let (next, earliest) = (now + pause, now + asked.unwrap_or_default());
        if self.give_up_at(began) <= now {
            return false;
        }
        loop {
            let give_up_at = self.give_up_at(began);
            tokio::time::sleep_until(next.min(give_up_at)).await;
            if next <= give_up_at {
                return true;
            }
            if self.give_up_at(began) == give_up_at {
                return earliest <= give_up_at;
            }
        }
    }

    fn give_up_at(&self, began: Instant) -> Instant {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.max(began) + self.give_up_after
    }

    async fn attempt(&self, request: &Request, again: bool) -> Try {
        let single = request.events.len() == 1;
        let (url, content_type, body) = match request.events.as_slice() {
            [(_, event)] => (&self.single, "application/json", event.clone()),
            events => {
                let lines: Vec<_> = events.iter().map(|(_, event)| event.as_str()).collect();
                (&self.batch, "application/x-ndjson", lines.join("\n"))
            }
        };
        let mut post = self.http.post(url.clone()).header(header::CONTENT_TYPE, content_type);
        if !self.repeats_by_uid(request) {
            post = post.header("idempotency-key", format!("send-{}-{}", self.run, request.sequence));
        }
        // Anew for each try: what is signed is taken once.
        let signed = self.signer.as_ref().map(|signer| signer.sign(body.as_bytes())).unwrap_or_default();
        let response = match post.headers(signed).body(body).send().await {
            Ok(response) => response,
            Err(error) => return Try::Again { why: self.no_answer(&error), after: None },
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let replayed = again && headers.contains_key("idempotency-replayed");
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return Try::Again { why: self.no_answer(&error), after: None },
        };
        match status {
            StatusCode::ACCEPTED | StatusCode::OK if single => match serde_json::from_slice::<Accepted>(&body) {
                Ok(accepted) => Try::Answered(vec![outcome(&accepted, replayed)]),
                Err(_) => Try::Fatal(format!("{url} does not answer like Signalpost")),
            },
            StatusCode::ACCEPTED | StatusCode::MULTI_STATUS | StatusCode::UNPROCESSABLE_ENTITY if !single => {
                self.batch_answer(request, status, &body, replayed)
            }
            StatusCode::FORBIDDEN if code(&body) == "signature_replayed" => {
                Try::Answered(vec![Outcome::Refused(refusal(&body, status)); request.events.len()])
            }
            StatusCode::FORBIDDEN if code(&body) == "signature_invalid" => Try::Fatal(format!(
                "the signature is not accepted (--sign-secret, --sign-scheme): {}",
                problem(&body, status)
            )),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Try::Fatal(format!("the API key is not accepted: {}", problem(&body, status)))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if !is_problem(&headers) => {
                Try::Fatal(format!("{url} answers {status}: nobody speaks Signalpost's API there"))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Try::Again { why: problem(&body, status), after: retry_after(&headers) }
            }
            status if status.is_server_error() => {
                Try::Again { why: problem(&body, status), after: retry_after(&headers) }
            }
            status => Try::Answered(vec![Outcome::Refused(refusal(&body, status)); request.events.len()]),
        }
    }

    /// Where the body alone is signed, it is taken again by the key or by the `uid`s that it was taken with. The key of this run is not
    /// the next one's: where each event has a `uid`, these stand for it, so that a file can be sent again.
    fn repeats_by_uid(&self, request: &Request) -> bool {
        self.signer.as_ref().is_some_and(Signer::is_timeless) && request.events.iter().all(|(_, event)| has_uid(event))
    }

    fn batch_answer(&self, request: &Request, status: StatusCode, body: &[u8], replayed: bool) -> Try {
        let Ok(answer) = serde_json::from_slice::<BatchAnswer>(body) else {
            // The batch as a whole was refused.
            return Try::Answered(vec![Outcome::Refused(refusal(body, status)); request.events.len()]);
        };
        if answer.results.len() != request.events.len() {
            return Try::Fatal(format!("{} does not answer like Signalpost", self.batch));
        }
        let outcomes = answer.results.iter().map(|result| match result {
            BatchResult::Accepted(accepted) => outcome(accepted, replayed),
            BatchResult::Refused { error } if error.status == 429 || error.status >= 500 => {
                Outcome::Unknown(error.text())
            }
            BatchResult::Refused { error } => Outcome::Refused(error.text()),
        });
        Try::Answered(outcomes.collect())
    }

    fn no_answer(&self, error: &reqwest::Error) -> String {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        format!("no answer from {}: {cause}", self.single.origin().ascii_serialization())
    }
}

fn has_uid(event: &str) -> bool {
    #[derive(Deserialize)]
    struct Envelope {
        uid: Option<IgnoredAny>,
    }
    serde_json::from_str::<Envelope>(event).is_ok_and(|event| event.uid.is_some())
}

/// A repetition that finds what its own first try did is no duplicate.
fn outcome(accepted: &Accepted, replayed: bool) -> Outcome {
    if accepted.duplicate && !replayed { Outcome::Duplicate } else { Outcome::Accepted }
}

/// What the answer says of an event that is refused.
fn refusal(body: &[u8], status: StatusCode) -> String {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    Some(problem.text()).filter(|text| !text.is_empty()).unwrap_or_else(|| format!("answered {status}"))
}

/// What the answer says of Signalpost itself, with the status.
fn problem(body: &[u8], status: StatusCode) -> String {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let text = problem.text();
    if text.is_empty() { format!("answered {status}") } else { format!("answered {}: {text}", status.as_u16()) }
}

/// What a program looks at.
fn code(body: &[u8]) -> String {
    serde_json::from_slice::<Problem>(body).unwrap_or_default().code
}

fn is_problem(headers: &header::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"))
}

/// In seconds; as a date it is not used, since our pauses are close to what it would say.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
