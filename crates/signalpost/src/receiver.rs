//! `signalpost receiver`: a receiver to try with. It prints what arrives and misbehaves on request.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use signalpost_core::Secret;
use signalpost_receiver::{Failure as Fault, Faults, Received, Receiver, ReceiverSettings, Stats, Verifier};
use signalpost_runtime::Shutdown;

use signalpost_wiring::{Failure, listen};

use crate::{scheme::Scheme, terminal::secret};

/// Receive webhooks, print them, and misbehave on request
///
/// Without flags every request is answered with 200. With one of --status, --hang, --drip, --reset, --big-body and
/// --redirect requests fail in that way: all of them, or the share --fail-rate, or the first --fail-first of
/// each delivery.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000", value_parser = signalpost_config::address)]
    listen: SocketAddr,
    /// The destination's secret (`whsec_…`; of `standard_ed25519` its public key, `whpk_…`; of `hmac` any text), to judge signatures with
    #[arg(long, value_parser = secret)]
    secret: Option<Secret>,
    /// How requests are signed: standard, or hmac,header=NAME[,prefix=TEXT][,encoding=hex|base64][,canonical=raw|sorted_keys]
    #[arg(long, default_value = "standard", requires = "secret")]
    scheme: Scheme,
    /// Answer 401 where the signature is wrong (needs --secret)
    #[arg(long, requires = "secret")]
    reject_invalid: bool,
    /// The share of requests that fail, 0 to 1 [default: 1 with a way to fail, else 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    fail_rate: Option<f64>,
    /// The first so many requests of each delivery fail
    #[arg(long, value_name = "REQUESTS", default_value_t = 0)]
    fail_first: u32,
    /// Draws which requests fail
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    way: Way,
    /// Milliseconds before every answer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// `Retry-After` of failed answers
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u64>,
    /// Print bodies
    #[arg(long)]
    bodies: bool,
    /// Print the totals only, at the end
    #[arg(long, short)]
    quiet: bool,
    /// Serve /_receiver/stats, /_receiver/requests and /_receiver/faults (GET, PUT), to watch and change it while it runs
    #[arg(long)]
    control: bool,
}

/// How requests fail; one of these.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Way {
    /// Fail with this status [default: 500]
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,
    /// Fail by never answering
    #[arg(long)]
    hang: bool,
    /// Fail by sending the body byte by byte, this many milliseconds apart
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "1000")]
    drip: Option<u64>,
    /// Fail by resetting the connection
    #[arg(long)]
    reset: bool,
    /// Fail (if it is one) with 200 and a body of this size
    #[arg(long, value_name = "BYTES")]
    big_body: Option<u64>,
    /// Fail with 302 to this URL
    #[arg(long, value_name = "URL")]
    redirect: Option<String>,
}

impl Way {
    fn fault(&self) -> Option<Fault> {
        if let Some(pause_ms) = self.drip {
            return Some(Fault::Drip { status: 200, bytes: 1_000, pause_ms });
        }
        if let Some(bytes) = self.big_body {
            return Some(Fault::BigBody { status: 200, bytes });
        }
        if let Some(url) = &self.redirect {
            return Some(Fault::Redirect(url.clone()));
        }
        match (self.hang, self.reset) {
            (true, _) => Some(Fault::Hang),
            (_, true) => Some(Fault::Reset),
            _ => self.status.map(Fault::Status),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be from 0 to 1".to_owned())
}

impl Args {
    fn faults(&self) -> Faults {
        let fault = self.way.fault();
        let rate = self.fail_rate.unwrap_or(if fault.is_some() && self.fail_first == 0 { 1.0 } else { 0.0 });
        Faults {
            rate,
            first: self.fail_first,
            failure: fault.unwrap_or_default(),
            latency_ms: self.latency,
            retry_after_seconds: self.retry_after,
        }
    }
}

/// Serves until it is interrupted.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    let (bodies, quiet) = (args.bodies, args.quiet);
    let settings = ReceiverSettings {
        listen: args.listen,
        verifier: args.secret.as_ref().map(|secret| verifier(&args.scheme, secret)).transpose()?,
        reject_invalid: args.reject_invalid,
        faults: args.faults(),
        seed: args.seed,
        control: args.control,
        observer: (!quiet).then(|| Arc::new(move |received: &Received| print(received, bodies)) as _),
        ..ReceiverSettings::default()
    };
    let receiver = Receiver::start(settings).await.map_err(|error| listen::refused(args.listen, "--listen", error))?;
    say(&greeting(&receiver, &args));
    shutdown.draining().await;
    let stats = receiver.stats();
    receiver.stop().await;
    say(&totals(&stats));
    Ok(())
}

fn verifier(scheme: &Scheme, secret: &Secret) -> Result<Verifier, Failure> {
    match scheme.hmac(secret.reveal()) {
        Some((header, hmac)) => Ok(Verifier::hmac(header, hmac)),
        None => Verifier::standard(secret.reveal()).map_err(|error| Failure::setting(format!("--secret: {error}"))),
    }
}

fn greeting(receiver: &Receiver, args: &Args) -> String {
    let addr = receiver.addr();
    let ip = if addr.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { addr.ip() };
    let faults = args.faults();
    let mut text = format!("receiving at http://{}/", SocketAddr::new(ip, addr.port()));
    if faults.rate > 0.0 || faults.first > 0 {
        text.push_str(&format!(", {}", told(&faults)));
    }
    if args.secret.is_none() {
        text.push_str("\nsignatures are not checked: give --secret (GET /v1/destinations/{id}/secret shows it)");
    }
    text
}

fn told(faults: &Faults) -> String {
    let how = match &faults.failure {
        Fault::Status(status) => format!("with {status}"),
        Fault::Hang => "by never answering".to_owned(),
        Fault::Drip { pause_ms, .. } => format!("by dripping, a byte every {pause_ms} ms"),
        Fault::Reset => "by a reset".to_owned(),
        Fault::BigBody { bytes, .. } => format!("with a body of {bytes} bytes"),
        Fault::Redirect(url) => format!("with a redirect to {url}"),
    };
    match (faults.first, faults.rate) {
        (0, rate) => format!("failing {:.0} % of the requests {how}", rate * 100.0),
        (first, 0.0) => format!("failing the first {first} of each delivery {how}"),
        (first, rate) => format!("failing the first {first} of each delivery and {:.0} % {how}", rate * 100.0),
    }
}

fn print(received: &Received, bodies: bool) {
    let time = received.at.to_string();
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time).trim_end_matches('Z');
    let answer = received.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let name = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut line = format!(
        "{time:<15} {} {} {} {} attempt {} → {answer} in {}, {}",
        received.method,
        received.path,
        name(received.header("signalpost-event-type")),
        name(received.webhook_id()),
        received.attempt(),
        crate::terminal::short(received.took),
        received.verdict,
    );
    if bodies {
        line.push_str(&format!("\n    {}", String::from_utf8_lossy(&received.body)));
    }
    say(&line);
}

fn totals(stats: &Stats) -> String {
    format!(
        "{} requests, {} answered with 2xx; {} events, {} accepted; duplicates {}, overlaps {}; signatures: {} right, {} wrong",
        stats.requests,
        stats.accepted,
        stats.events,
        stats.events_accepted,
        stats.duplicates,
        stats.overlaps,
        stats.valid,
        stats.invalid
    )
}

/// Prints a line; nobody reading is no reason to stop.
fn say(line: &str) {
    let _nobody_reads = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn faults(flags: &str) -> Faults {
        Cli::try_parse_from(std::iter::once("receiver").chain(flags.split_whitespace())).unwrap().args.faults()
    }

    #[test]
    fn flags_become_faults() {
        assert_eq!(faults(""), Faults::none());
        assert_eq!(faults("--status 503"), Faults::always(Fault::Status(503)));
        assert_eq!(faults("--fail-rate 0.7"), Faults::some(0.7, Fault::Status(500)));
        assert_eq!(faults("--hang --fail-rate 0.1"), Faults::some(0.1, Fault::Hang));
        assert_eq!(faults("--fail-first 2 --reset"), Faults::first(2, Fault::Reset));
        assert_eq!(faults("--drip").failure, Fault::Drip { status: 200, bytes: 1_000, pause_ms: 1_000 });
        assert_eq!(faults("--drip 20").failure, Fault::Drip { status: 200, bytes: 1_000, pause_ms: 20 });
        assert_eq!(faults("--big-body 1000000").failure, Fault::BigBody { status: 200, bytes: 1_000_000 });
        let slow = Faults::none().with_latency(Duration::from_millis(250)).with_retry_after(3);
        assert_eq!(faults("--latency 250 --retry-after 3"), slow);
    }

    #[test]
    fn the_secret_is_shown_by_no_debug() {
        let args = Cli::try_parse_from(["receiver", "--secret", "whsec_planted"]).unwrap().args;
        assert_eq!(args.secret.as_ref().unwrap().reveal(), "whsec_planted");
        assert!(!format!("{args:?}").contains("planted"));
    }

    #[test]
    fn there_is_one_way_to_fail() {
        for flags in ["--hang --reset", "--status 500 --drip", "--fail-rate 1.5"] {
            assert!(Cli::try_parse_from(std::iter::once("receiver").chain(flags.split(' '))).is_err(), "{flags}");
        }
    }
}
