//! `signalpost health URL`: asks a service how it is; for health checks of containers, which have no other HTTP client.

use std::time::Duration;

use anyhow::Context as _;
use signalpost_wiring::Failure;

/// How long a service may take to say how it is.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Ask a service how it is; exit code 0 where it answers 2xx (for health checks of containers)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Such as `http://127.0.0.1:8080/health/ready`
    url: reqwest::Url,
}

/// Asks once.
pub async fn run(args: Args) -> Result<(), Failure> {
    // One TLS stack, with ring.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("no HTTP client")?;
    let answer = client.get(args.url.clone()).send().await.with_context(|| format!("{} does not answer", args.url))?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    println!("{status} {body}");
    if status.is_success() { Ok(()) } else { Err(anyhow::anyhow!("{} is not well", args.url).into()) }
}
