//! The URLs that tenants type in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use signalpost_sender::EgressPolicy;
use url::Host;

/// A URL of a destination.
///
/// # Panics
/// One is allowed whose host is not of the public internet by what the standard library knows, or that reads differently the
/// second time.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = EgressPolicy::public_only();
    let Ok(url) = policy.check_url(text) else { return };
    assert_eq!(policy.check_url(url.as_str()).as_ref(), Ok(&url), "its normal form");
    assert_eq!(url.scheme(), "https");
    assert!(url.username().is_empty() && url.password().is_none());
    assert!(!policy.deny_ports.contains(&url.port_or_known_default().expect("a port")));
    match url.host().expect("a host") {
        Host::Ipv4(address) => assert!(is_public(address), "{address}"),
        Host::Ipv6(address) => check_v6(address),
        Host::Domain(name) => {
            assert!(name.parse::<IpAddr>().is_err() && !name.is_empty() && name.is_ascii(), "{name}");
            let name = name.trim_end_matches('.');
            assert!(name != "localhost" && !name.ends_with(".localhost"), "{name}");
            assert_ne!(name, "metadata.google.internal");
        }
    }
}

/// An oracle of its own: less than the guard knows.
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || shared
        || a == 0
        || a >= 240)
}

fn check_v6(address: Ipv6Addr) {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => assert!(is_public(embedded(high, low)), "{address}"),
        [0, 0, 0, 0, 0, 0xffff, high, low] => assert!(is_public(embedded(high, low)), "{address}"),
        [0x2002, high, low, ..] => assert!(is_public(embedded(high, low)), "{address}"),
        [first, ..] => assert!(first & 0xe000 == 0x2000, "{address}"),
    }
}
