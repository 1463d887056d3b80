//! Where a system listens, as it is named on the command line: `http://host:port/path`.

use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use http::uri::Authority;
use serde::{Serialize, Serializer};

/// The port of `http://`.
const PORT: u16 = 80;

/// An address over HTTP without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port`.
    pub host: String,
    /// From the first slash on; `/` where there was none. What it holds besides is kept as it was given.
    pub path: String,
}

impl Address {
    /// An address that is followed by paths of ours, so it has none itself.
    ///
    /// # Errors
    /// It has one; or as for others.
    pub fn base(text: &str) -> anyhow::Result<Self> {
        let address: Self = text.parse()?;
        ensure!(address.path == "/", "host and port are enough, the paths are those of the API");
        Ok(address)
    }

    /// Up to the path.
    pub fn origin(&self) -> String {
        format!("http://{}", self.host)
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some(rest) = text.strip_prefix("http://") else {
            if text.starts_with("https://") {
                bail!("this program speaks no TLS, so the address begins with http://");
            }
            bail!("an address is http://host:port");
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority: Authority = authority.parse().context("no host and port")?;
        ensure!(!authority.as_str().contains('@'), "an address holds no user and password");
        ensure!(!authority.host().is_empty(), "there is no host");
        // An authority with a port that is no number is taken by its parser, too.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().with_context(|| format!("{port:?} is no port"))?,
            None => PORT,
        };
        ensure!(!path.contains(|c: char| c.is_whitespace() || c.is_control()), "a path has no spaces");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: format!("{}:{port}", authority.host()), path })
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("http://{}{}", self.host, self.path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Address;

    #[test]
    fn host_port_and_path_are_found() {
        let cases = [
            ("http://127.0.0.1:8071", "127.0.0.1:8071", "/"),
            ("http://localhost/", "localhost:80", "/"),
            ("http://[::1]:8080/a/{type}?x={id}", "[::1]:8080", "/a/{type}?x={id}"),
            ("http://host?x=1", "host:80", "/?x=1"),
        ];
        for (text, host, path) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!((&*address.host, &*address.path), (host, path), "{text}");
        }
        assert_eq!(Address::base("http://localhost/").unwrap().origin(), "http://localhost:80");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("https://host:1", "speaks no TLS"),
            ("host:1", "http://host:port"),
            ("", "http://host:port"),
            ("http://", "no host"),
            ("http://:80", "no host"),
            ("http://host:many", "no "),
            ("http://host:99999", "is no port"),
            ("http://me:secret@host", "no user"),
            ("http://host/a b", "no spaces"),
        ];
        for (text, said) in cases {
            let error = text.parse::<Address>().unwrap_err();
            assert!(format!("{error:#}").contains(said), "{error:#}");
        }
        assert!(Address::base("http://host/v1").unwrap_err().to_string().contains("host and port are enough"));
    }
}
