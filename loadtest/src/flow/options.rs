//! Options of every fast scenario, and what they say of another system than Signalpost.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;

use crate::{address::Address, load::Pace, ranges::at_least_one, target, wire::Template};

/// Up to that many events each second a few connections do, and they stay warm.
const SLOW: f64 = 2_000.0;

/// How loads are made.
#[derive(Debug, Clone, Args, Serialize)]
// Those of a scenario, which it is a part of, have the same name, and are a group already.
#[group(skip)]
pub struct Options {
    /// Connections of the producers; default: 64, and 256 for an open loop of more than 2,000 events each second.
    #[arg(long, value_parser = at_least_one::<usize>)]
    pub connections: Option<usize>,
    /// Bytes of the data of an event; of several sizes the events take turns (500,2000,7000,50000).
    #[arg(long, value_delimiter = ',', default_values_t = [500])]
    pub sizes: Vec<usize>,
    /// Events in a request; a scenario whose requests are made one by one takes no other number than 1.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub batch: u64,
    /// Deliveries before anything counts; default: 100,000 for a cluster, whose JVM starts cold, else 5,000.
    #[arg(long)]
    pub warm: Option<u64>,
    /// `max_in_flight` of each destination.
    #[arg(long, value_parser = at_least_one::<u32>)]
    pub max_in_flight: Option<u32>,
    /// Where the receiver listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub sink: SocketAddr,
    #[command(flatten)]
    #[serde(skip_serializing_if = "Other::is_none")]
    pub other: Other,
}

/// Another system.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct Other {
    /// Measures another system than Signalpost, which runs already and sends to the receiver (--sink): where events are
    /// posted, as http://host:port/path. {id}, {type} and {data} stand for the event's number, type and payload, here, in
    /// --header and in --body-template.
    #[arg(long, value_name = "URL", requires = "body_template")]
    url_template: Option<Address>,
    /// A header of its requests, as `name: value`; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", requires = "url_template")]
    // A report is shown around: it holds no keys.
    #[serde(skip)]
    headers: Vec<String>,
    /// The body of its requests, or @file.
    #[arg(long, value_name = "TEXT", requires = "url_template")]
    body_template: Option<String>,
    /// A process of it, or of what --url names, whose CPU and memory count with those of its children; may be repeated.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pids: Vec<String>,
}

impl Options {
    /// How many connections a load has.
    pub fn connections(&self, pace: Pace) -> usize {
        self.connections.unwrap_or(match pace {
            Pace::PerSecond(rate) if rate > SLOW => 256,
            Pace::PerSecond(_) | Pace::Closed => 64,
        })
    }

    /// Whether every option means something for what is measured.
    ///
    /// # Errors
    /// One does not, in words.
    pub fn check(&self, target: &target::Options) -> anyhow::Result<()> {
        if self.other.is_none() {
            ensure!(
                self.other.pids.is_empty() || !target.url.is_empty(),
                "--pid names processes of what runs already: with --url, or --url-template"
            );
            return Ok(());
        }
        ensure!(target.url.is_empty(), "--url names a Signalpost, and --url-template another system");
        ensure!(self.batch == 1, "--batch is for Signalpost: a request of --url-template is one event");
        ensure!(self.max_in_flight.is_none(), "--max-in-flight is for Signalpost, not for --url-template");
        target.starts_nothing("--url-template")
    }

    /// Whether events are posted one by one, for a scenario that needs that.
    ///
    /// # Errors
    /// They are not.
    pub fn one_by_one(&self, scenario: &str) -> anyhow::Result<()> {
        ensure!(self.batch == 1, "{scenario} takes no --batch");
        Ok(())
    }
}

impl Other {
    /// Whether none was named.
    pub fn is_none(&self) -> bool {
        self.url_template.is_none()
    }

    /// How that system is told of events, where one was named.
    ///
    /// # Errors
    /// An option has another form than it should.
    pub fn template(&self) -> anyhow::Result<Option<Template>> {
        let Some(Address { host, path }) = self.url_template.clone() else { return Ok(None) };
        let mut headers = Vec::with_capacity(self.headers.len());
        for header in &self.headers {
            let (name, value) = header.split_once(':').with_context(|| format!("--header {header}: NAME: VALUE"))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let body = self.body_template.clone().unwrap_or_default();
        let event = match body.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("--body-template {body}"))?,
            None => body,
        };
        Ok(Some(Template { host, path, headers, event, around: ["", "", ""].map(str::to_owned) }))
    }

    /// Its processes.
    ///
    /// # Errors
    /// As [`Self::template`].
    pub fn pids(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let pid = |text: &String| {
            let (name, pid) = text.split_once('=')?;
            Some((name.to_owned(), pid.parse().ok()?))
        };
        self.pids.iter().map(|text| pid(text).with_context(|| format!("--pid {text}: NAME=PID"))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Other;

    #[test]
    fn a_template_from_the_command_line() {
        let other = Other {
            url_template: Some("http://127.0.0.1:8071/api/v1/app/a/msg".parse().unwrap()),
            headers: vec!["authorization: Bearer x:y".to_owned()],
            body_template: Some(r#"{"payload":{data}}"#.to_owned()),
            pids: vec!["svix=12".to_owned()],
        };
        let template = other.template().unwrap().unwrap();
        assert_eq!((&*template.host, &*template.path), ("127.0.0.1:8071", "/api/v1/app/a/msg"));
        assert_eq!(template.headers, [("authorization".to_owned(), "Bearer x:y".to_owned())]);
        assert_eq!(other.pids().unwrap(), [("svix".to_owned(), 12)]);
        assert!(Other { headers: vec!["x".to_owned()], ..other }.template().is_err());
        assert!(Other::default().template().unwrap().is_none());
    }
}
