//! What is printed when all is up.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::{inbox, terminal::short};

/// What there is to say.
pub struct Greeting<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// The operator's newest key.
    pub key: &'a str,
    /// Where everything lives.
    pub data_dir: &'a Path,
    /// The key is in the data directory, and not a setting.
    pub made_by_us: bool,
    /// From the start until now.
    pub took: Duration,
}

impl Greeting<'_> {
    /// The address as one reaches it from this machine.
    fn url(&self) -> String {
        let ip = match self.address.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// With three lines that work when they are pasted into a shell.
    pub fn dev(&self) -> String {
        let (url, key, inbox) = (self.url(), self.key, inbox::PATH);
        let post = format!("-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'");
        let mut text = format!(
            "Signalpost {version} is ready ({took}).

  API      {url}      (browse it: {url}/docs)
  key      {key}
  inbox    {url}{inbox}
  data     {data}

Paste these, one after the other: make a destination that is the inbox, post an event, list its attempts.

curl -sw '\\n' -X PUT {url}/v1/destinations/inbox {post} -d '{{\"name\":\"inbox\",\"url\":\"{url}{inbox}\"}}'
curl -sw '\\n' {url}/v1/events {post} -d '{{\"type\":\"order.created\",\"data\":{{\"order\":42}}}}'
curl -sw '\\n' '{url}/v1/attempts?limit=5' -H 'Authorization: Bearer {key}'

Every attempt is told here. Ctrl-C stops; the next start finds everything again.
",
            version = env!("CARGO_PKG_VERSION"),
            took = short(self.took),
            data = self.data_dir.display(),
        );
        if !self.address.ip().is_loopback() {
            text.push_str("\nNote: this listens beyond this machine, and whoever reaches it can read the inbox.\n");
        }
        text
    }

    /// One line; the key stays in its file.
    pub fn standalone(&self) -> String {
        let key = if self.made_by_us {
            format!("its key is in {}", self.data_dir.join("keys.toml").display())
        } else {
            "its key is the one that is set".to_owned()
        };
        format!("Signalpost {} is ready at {}; {key}", env!("CARGO_PKG_VERSION"), self.url())
    }
}
