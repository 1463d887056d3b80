//! `signalpost send`: posts the events of a file or of standard input.
//!
//! A thread reads lines into items ([`source`]), items are grouped into requests at the wanted pace ([`pace`]), requests
//! are posted and repeated under one idempotency key ([`client`]), answers are counted ([`tally`]). A broken or refused
//! line is told with its number, and the rest goes on.

mod client;
mod client_retry;
mod pace;
mod signer;
mod source;
mod tally;

use std::{
    io::IsTerminal as _,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use client::Client;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use pace::Requests;
use signalpost_core::Secret;
use signalpost_runtime::Shutdown;
use signer::Signer;
use source::{Format, Source};
use tally::Tally;

use signalpost_wiring::Failure;

use crate::{data_dir, scheme::Scheme, terminal::secret};

/// Post events from NDJSON or CSV, from a file or standard input
///
/// NDJSON: one event per line, as `POST /v1/events` takes it: {"type": "order.created", "data": {"order": 42}}.
/// CSV: the first line names the columns; each further line becomes `data`, an object of strings.
///
/// Requests that fail (429, 5xx, no connection) are repeated under the same idempotency key, so that nothing is
/// accepted twice. Exit code 1 when a line was broken, refused, or not accepted in time.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Where Signalpost is
    #[arg(long, env = "SIGNALPOST_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The API key; else the one of SIGNALPOST_ADMIN_KEY, else the one in the data directory of `dev` and `standalone`
    #[arg(long, env = "SIGNALPOST_API_KEY", hide_env_values = true, value_parser = secret)]
    key: Option<Secret>,
    /// Sign each request, for a tenant whose producers must (`ingest_signature`): its secret
    #[arg(long, env = "SIGNALPOST_SIGN_SECRET", hide_env_values = true, value_parser = secret)]
    sign_secret: Option<Secret>,
    /// How: standard, or hmac,header=NAME[,prefix=TEXT][,encoding=hex|base64][,canonical=raw|sorted_keys]. Under hmac, which signs the
    /// body alone, lines without a `uid` cannot be sent again: what was taken before is refused
    #[arg(long, env = "SIGNALPOST_SIGN_SCHEME", default_value = "standard")]
    sign_scheme: Scheme,
    /// The event type; for NDJSON only of lines without one
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// The CSV column that becomes the event's `uid`, so that sending the file again creates nothing twice
    #[arg(long, value_name = "COLUMN")]
    uid_column: Option<String>,
    /// How to read; default: by the file's extension, NDJSON for standard input
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// At most so many events per second
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,
    /// Stop after so many events
    #[arg(long, value_name = "EVENTS")]
    max: Option<u64>,
    /// Requests out at once
    #[arg(long, default_value = "8", value_name = "REQUESTS")]
    concurrency: NonZeroUsize,
    /// Events per request; 1 posts each one by itself
    #[arg(long, default_value = "100", value_name = "EVENTS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Requests are repeated until nothing was accepted for so long; then the rest counts as failed
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    give_up_after: u64,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Sends, and prints the summary.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let source = Source::open(&args.file, args.format, args.event_type.clone(), args.uid_column.clone())?;
    let progress = progress(&args, source.bytes());
    let signer = args.sign_secret.as_ref().map(|secret| Signer::new(&args.sign_scheme, secret)).transpose()?;
    let client = Client::new(&args.url, &key(args.key.as_ref())?, signer, Duration::from_secs(args.give_up_after))?;
    let mut tally = Tally::new(progress.clone());
    let mut items = source.read(args.max.unwrap_or(u64::MAX));
    let (stop, give_up) = (items.stopper(), items.stopper());
    let interrupted = tokio::spawn(async move {
        shutdown.draining().await;
        eprintln!("signalpost: stopping; what is under way is still tried; a second signal (Ctrl-C) stops at once");
        stop.stop();
    });
    let requests = Requests::new(usize::from(args.batch), args.rate);
    let mut answers = Box::pin(
        requests.of(&mut items).map(|request| client.post(request, &progress)).buffer_unordered(args.concurrency.get()),
    );
    while let Some(answer) = answers.next().await {
        tally.add(answer);
        if tally.refused_for_good().is_some() {
            break;
        }
        if tally.has_given_up() {
            // What is under way may still be answered; more would only wait as long.
            give_up.stop();
        }
    }
    drop(answers);
    let stopped_early = items.was_stopped();
    interrupted.abort();
    progress.finish_and_clear();
    if let Some(reason) = tally.refused_for_good() {
        eprintln!("signalpost: {reason}");
    }
    println!("{}", tally.summary());
    if tally.has_given_up() {
        let silence = args.give_up_after;
        eprintln!("signalpost: gave up, as nothing was accepted for {silence} s; what came after that was not sent");
    } else if stopped_early {
        eprintln!("signalpost: stopped before the end");
    }
    if tally.is_clean() && !stopped_early { Ok(()) } else { Err(Failure::Told) }
}

fn key(given: Option<&Secret>) -> Result<String, Failure> {
    if let Some(key) = given.map(Secret::reveal).filter(|key| !key.is_empty()) {
        return Ok(key.to_owned());
    }
    // Several, newest first.
    if let Ok(keys) = std::env::var("SIGNALPOST_ADMIN_KEY")
        && let Some(key) = keys.split(',').map(str::trim).find(|key| !key.is_empty())
    {
        return Ok(key.to_owned());
    }
    data_dir::admin_key_of_default().ok_or_else(|| {
        Failure::setting(
            "no API key: give --key, or set SIGNALPOST_API_KEY (`signalpost dev` prints its key when it starts), or \
             SIGNALPOST_DATA_DIR, where that of a standalone on this machine lies",
        )
    })
}

fn progress(args: &Args, bytes: Option<u64>) -> ProgressBar {
    if args.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {msg}  [{elapsed_precise}, {eta} to go]"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  [{elapsed_precise}]"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
