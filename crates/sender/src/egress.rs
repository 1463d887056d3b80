//! The egress guard: which URLs and addresses deliveries may reach.
//!
//! Two gates. The text of a URL is judged when it is set and again before it is sent to: once per process and text, as the policy never changes within one.
//! Addresses are judged at every connection, by the resolver that the connector asks: what it gives is what is connected to, so a name cannot be
//! rebound between the check and the connection.
//!
//! Not protected against: an operator who allows too much, and a host on the public internet that relays inward.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

use crate::address;

/// Which URLs and addresses deliveries may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressPolicy {
    /// What may be reached besides the public internet.
    pub allow: Vec<IpNet>,
    /// `http:` is only for what `allow` names.
    pub require_https: bool,
    /// Ports that nothing is sent to, not even to what `allow` names.
    pub deny_ports: Vec<u16>,
}

/// Why a URL is not allowed. The texts are for its owner and name no address but the one that he wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlDenied {
    /// Not an absolute URL with a host (a zone id counts as that, too).
    #[error("must be an absolute URL with a host")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("must be an http or https URL")]
    Scheme,
    /// `user:password@`.
    #[error("must not hold a user name or password")]
    Userinfo,
    /// A port of the deny-list.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// The name of a metadata service.
    #[error("this host is not allowed")]
    Name,
    /// It is, or resolves to, an address that is not allowed.
    #[error("its host is, or resolves to, an address that is not allowed (see SIGNALPOST_EGRESS_ALLOW)")]
    Address,
    /// `http:` outside of what the operator allowed.
    #[error("must be an https URL")]
    HttpsRequired,
}

/// Ports of other protocols: what browsers refuse (WHATWG Fetch, "bad port"), data stores, and what controls a cluster.
pub const DEFAULT_DENY_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 445, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2375,
    2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669,
    6679, 6697, 9042, 9092, 10080, 10250, 11211, 27017,
];

/// Names of metadata services of clouds, and of this machine beside `localhost` (of `/etc/hosts` of common systems).
const DENIED_NAMES: &[&str] = &[
    "broadcasthost",
    "instance-data",
    "ip6-localhost",
    "ip6-loopback",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "loopback",
    "metadata",
    "metadata.azure.com",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
    "rancher-metadata",
];

/// What `localhost` stands for, without asking DNS (RFC 6761, 6.3).
pub(crate) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

impl EgressPolicy {
    /// The public internet over https, nothing else.
    pub fn public_only() -> Self {
        Self { allow: Vec::new(), require_https: true, deny_ports: DEFAULT_DENY_PORTS.to_vec() }
    }

    /// Judges the text of a URL, and normalises it.
    ///
    /// # Errors
    /// It is not allowed, whatever its name resolves to.
    pub fn check_url(&self, text: &str) -> Result<Url, UrlDenied> {
        // `Url` drops line breaks and tabs wherever they stand. Nobody means to write them.
        if text.chars().any(char::is_control) {
            return Err(UrlDenied::Malformed);
        }
        let url = Url::parse(text).map_err(|_| UrlDenied::Malformed)?;
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(UrlDenied::Scheme),
        };
        // `Url` takes `https:host`, `https:///host`, `https:\\host` and `https://@host` for `https://host`.
        let authority = authority(text).ok_or(UrlDenied::Malformed)?;
        if authority.contains('@') {
            return Err(UrlDenied::Userinfo);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if self.deny_ports.contains(&port) {
            return Err(UrlDenied::Port(port));
        }
        match url.host().ok_or(UrlDenied::Malformed)? {
            Host::Ipv4(address) => self.check_address(address.into(), plain)?,
            Host::Ipv6(address) => self.check_address(address.into(), plain)?,
            Host::Domain(name) => self.check_name(name, plain)?,
        }
        Ok(url)
    }

    /// Judges the addresses that a URL's name resolves to now. A name that does not resolve is accepted: it fails when it
    /// is sent to. Expects what [`Self::check_url`] gave.
    ///
    /// # Errors
    /// One of them is not allowed.
    pub async fn check_resolved(&self, url: &Url) -> Result<(), UrlDenied> {
        let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
        if is_localhost(name) {
            return Ok(());
        }
        let Ok(found) = tokio::time::timeout(crate::resolver::LOOKUP_TIMEOUT, crate::resolver::look_up(name)).await
        else {
            return Ok(());
        };
        for address in found.unwrap_or_default() {
            self.check_address(address, url.scheme() == "http")?;
        }
        Ok(())
    }

    /// Whether a connection to this address may be made; `plain`: without TLS.
    pub(crate) fn check_address(&self, address: IpAddr, plain: bool) -> Result<(), UrlDenied> {
        if self.is_allowed_by_list(address) {
            return Ok(());
        }
        if !address::is_public(address) {
            return Err(UrlDenied::Address);
        }
        if plain && self.require_https { Err(UrlDenied::HttpsRequired) } else { Ok(()) }
    }

    fn check_name(&self, name: &str, plain: bool) -> Result<(), UrlDenied> {
        let name = bare(name);
        // An empty label; `url` lets `127.0.0.1..` pass as a name.
        if name.split('.').any(str::is_empty) {
            return Err(UrlDenied::Malformed);
        }
        // EC2's name has the region inside: `instance-data.eu-west-1.compute.internal`.
        let instance_data = name.starts_with("instance-data.") && name.ends_with(".internal");
        if instance_data || DENIED_NAMES.binary_search(&name).is_ok() {
            return Err(UrlDenied::Name);
        }
        if is_localhost(name) {
            return if LOOPBACK.into_iter().any(|address| self.is_allowed_by_list(address)) {
                Ok(())
            } else {
                Err(UrlDenied::Address)
            };
        }
        if plain && self.require_https && self.allow.is_empty() { Err(UrlDenied::HttpsRequired) } else { Ok(()) }
    }

    pub(crate) fn is_allowed_by_list(&self, address: IpAddr) -> bool {
        let address = address::canonical(address);
        self.allow.iter().any(|net| net.contains(&address))
    }
}

/// What stands between `//` and the path. None: nothing, or it ends with a backslash, which not all take for a slash.
fn authority(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(':')?;
    let rest = rest.strip_prefix("//")?;
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    (!authority.is_empty() && !after.starts_with('\\')).then_some(authority)
}

/// Without the dot of a fully qualified name.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a name (in lower case, as `url` gives it) stands for this machine.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = bare(name);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], require_https: bool) -> EgressPolicy {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        EgressPolicy { allow, require_https, ..EgressPolicy::public_only() }
    }

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(DENIED_NAMES.is_sorted());
    }

    #[test]
    fn urls_are_judged_by_their_text() {
        use UrlDenied::{Address, HttpsRequired, Malformed, Name, Port, Scheme, Userinfo};
        let policy = policy(&[], true);
        for (text, denied) in [
            ("https://example.com/hook", None),
            ("https://EXAMPLE.com:443/hook", None),
            ("https://1.1.1.1/", None),
            ("https://[2606:4700::1111]/", None),
            ("http://example.com/", Some(HttpsRequired)),
            ("http://1.1.1.1/", Some(HttpsRequired)),
            ("/hook", Some(Malformed)),
            ("https://", Some(Malformed)),
            ("https://./", Some(Malformed)),
            ("https://[fe80::1%25eth0]/", Some(Malformed)),
            ("ftp://example.com/", Some(Scheme)),
            ("file:///etc/passwd", Some(Scheme)),
            ("https://user@example.com/", Some(Userinfo)),
            ("https://:secret@example.com/", Some(Userinfo)),
            ("https://example.com:22/", Some(Port(22))),
            ("https://example.com:0/", Some(Port(0))),
            ("https://example.com:6379/", Some(Port(6379))),
            ("https://metadata.google.internal/", Some(Name)),
            ("https://METADATA.google.internal./", Some(Name)),
            ("https://localhost/", Some(Address)),
            ("https://localhost./", Some(Address)),
            ("https://a.LocalHost/", Some(Address)),
            ("https://127.0.0.1/", Some(Address)),
            ("https://127.1/", Some(Address)),
            ("https://2130706433/", Some(Address)),
            ("https://0x7f000001/", Some(Address)),
            ("https://0177.0.0.1/", Some(Address)),
            ("https://0x7f.1/", Some(Address)),
            ("https://１２７.０.０.１/", Some(Address)),
            ("https://①②⑦.0.0.1/", Some(Address)),
            ("https://127。0。0。1/", Some(Address)),
            ("https://%31%32%37.0.0.1/", Some(Address)),
            ("https://127.0.0.1./", Some(Address)),
            ("https://[::1]/", Some(Address)),
            ("https://[::]/", Some(Address)),
            ("https://[::ffff:127.0.0.1]/", Some(Address)),
            ("https://[::ffff:7f00:1]/", Some(Address)),
            ("https://[64:ff9b::7f00:1]/", Some(Address)),
            ("https://[2002:7f00:1::]/", Some(Address)),
            ("https://169.254.169.254/latest/meta-data", Some(Address)),
            ("https://10.0.0.1/", Some(Address)),
        ] {
            assert_eq!(policy.check_url(text).err(), denied, "{text}");
        }
    }

    #[test]
    fn the_allow_list_opens_exactly_what_it_names() {
        let policy = policy(&["127.0.0.0/8", "10.1.0.0/16"], true);
        for (text, denied) in [
            ("http://127.0.0.1:8080/dev/inbox", None),
            ("http://localhost:8080/", None),
            ("http://[::ffff:127.0.0.1]/", None),
            ("https://10.1.2.3/", None),
            ("http://[::1]/", Some(UrlDenied::Address)),
            ("http://10.2.0.1/", Some(UrlDenied::Address)),
            ("http://1.1.1.1/", Some(UrlDenied::HttpsRequired)),
            ("http://127.0.0.1:25/", Some(UrlDenied::Port(25))),
        ] {
            assert_eq!(policy.check_url(text).err(), denied, "{text}");
        }
    }

    #[test]
    fn the_ports_are_what_the_operator_says() {
        let own = EgressPolicy { deny_ports: vec![80, 8443], ..policy(&["10.0.0.0/8"], false) };
        for (text, denied) in [
            ("https://example.com/", None),
            ("https://example.com:22/", None),
            ("https://example.com:8443/", Some(UrlDenied::Port(8443))),
            ("http://example.com/", Some(UrlDenied::Port(80))),
            ("https://10.0.0.1:80/", Some(UrlDenied::Port(80))),
        ] {
            assert_eq!(own.check_url(text).err(), denied, "{text}");
        }
    }

    #[test]
    fn a_url_is_normalised() {
        let policy = policy(&[], false);
        assert_eq!(
            policy.check_url("HTTP://Bücher.example:80/a/../b").unwrap().as_str(),
            "http://xn--bcher-kva.example/b"
        );
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_accepted() {
        let policy = policy(&[], true);
        let url = policy.check_url("https://nowhere.invalid/").unwrap();
        assert_eq!(policy.check_resolved(&url).await, Ok(()));
    }
}
