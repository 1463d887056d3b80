//! Both edges of every range of the IANA special-purpose registries (as of 2025), and what else is not the public
//! internet: the address before it, its first, its last, and the address behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use signalpost_sender::address::is_public;

/// What lies beside a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// The public internet.
    Public,
    /// What is denied for another reason.
    Denied,
    /// No address.
    End,
}
use Beside::{Denied, End, Public};

/// A range that is denied, and what lies before and behind it. Ranges within ranges stand for themselves, too.
const DENIED: &[(&str, Beside, Beside)] = &[
    // IPv4: the registry.
    ("0.0.0.0/8", End, Public),
    ("0.0.0.0/32", End, Denied),
    ("10.0.0.0/8", Public, Public),
    ("100.64.0.0/10", Public, Public),
    ("127.0.0.0/8", Public, Public),
    ("169.254.0.0/16", Public, Public),
    ("172.16.0.0/12", Public, Public),
    ("192.0.0.0/24", Public, Public),
    ("192.0.0.0/29", Public, Denied),
    ("192.0.0.8/32", Denied, Denied),
    ("192.0.0.9/32", Denied, Denied),   // globally reachable, but no host: PCP
    ("192.0.0.10/32", Denied, Denied),  // globally reachable, but no host: TURN
    ("192.0.0.170/31", Denied, Denied), // NAT64 discovery
    ("192.0.2.0/24", Public, Public),
    ("192.88.99.0/24", Public, Public),
    ("192.88.99.2/32", Denied, Denied),
    ("192.168.0.0/16", Public, Public),
    ("198.18.0.0/15", Public, Public),
    ("198.51.100.0/24", Public, Public),
    ("203.0.113.0/24", Public, Public),
    ("240.0.0.0/4", Denied, End),
    ("255.255.255.255/32", Denied, End),
    // IPv4: beyond it.
    ("224.0.0.0/4", Public, Denied),
    ("168.63.129.16/32", Public, Public), // Azure's platform service
    ("169.254.169.254/32", Denied, Denied),
    ("100.100.100.200/32", Denied, Denied),
    // IPv6: the registry.
    ("::/128", End, Denied),
    ("::1/128", Denied, Denied),
    ("64:ff9b:1::/48", Denied, Denied),
    ("100::/64", Denied, Denied),
    ("100:0:0:1::/64", Denied, Denied),
    ("2001::/23", Public, Public),
    ("2001::/32", Public, Denied), // Teredo
    ("2001:1::1/128", Denied, Denied),
    ("2001:1::2/128", Denied, Denied),
    ("2001:1::3/128", Denied, Denied),
    ("2001:2::/48", Denied, Denied),
    ("2001:3::/32", Denied, Denied),
    ("2001:4:112::/48", Denied, Denied),
    ("2001:10::/28", Denied, Denied),
    ("2001:20::/28", Denied, Denied),
    ("2001:30::/28", Denied, Denied),
    ("2001:db8::/32", Public, Public),
    ("2002::/16", Public, Public), // 6to4
    ("3fff::/20", Public, Public),
    ("5f00::/16", Denied, Denied),
    ("fc00::/7", Denied, Denied),
    ("fe80::/10", Denied, Denied),
    // IPv6: beyond it. Only 2000::/3 is given out.
    ("::/3", End, Public),
    ("4000::/2", Public, Denied),
    ("8000::/1", Denied, End),
    ("fec0::/10", Denied, Denied),
    ("ff00::/8", Denied, End),
];

/// Ranges of the registries that are globally reachable and hold hosts.
const REACHABLE: &[&str] = &["192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2620:4f:8000::/48"];

/// The address `by` steps further, where there is one.
fn step(address: IpAddr, by: i8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add_signed(by.into()).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add_signed(by.into()).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn beside(address: Option<IpAddr>) -> Beside {
    match address {
        None => End,
        Some(address) if is_public(address) => Public,
        Some(_) => Denied,
    }
}

#[test]
fn both_edges_of_every_range() {
    for (range, before, behind) in DENIED {
        let net: IpNet = range.parse().unwrap();
        let (first, last) = (net.network(), net.broadcast());
        assert_eq!(net.addr(), first, "{range} begins there");
        assert!(!is_public(first), "first of {range}");
        assert!(!is_public(last), "last of {range}");
        assert_eq!(beside(step(first, -1)), *before, "before {range}");
        assert_eq!(beside(step(last, 1)), *behind, "behind {range}");
    }
    for range in REACHABLE {
        let net: IpNet = range.parse().unwrap();
        for address in [step(net.network(), -1), Some(net.network()), Some(net.broadcast()), step(net.broadcast(), 1)] {
            assert_eq!(beside(address), Public, "{range}");
        }
    }
}

/// Every form of IPv6 that carries an IPv4 address inside.
fn forms(v4: Ipv4Addr) -> Vec<(&'static str, Ipv6Addr, bool)> {
    let [high, low] = [(v4.to_bits() >> 16) as u16, (v4.to_bits() & 0xffff) as u16];
    let with = |first: [u16; 6]| {
        let [a, b, c, d, e, f] = first;
        Ipv6Addr::new(a, b, c, d, e, f, high, low)
    };
    vec![
        // With a public address inside they lead to it: allowed.
        ("mapped", with([0, 0, 0, 0, 0, 0xffff]), true),
        ("NAT64", with([0x64, 0xff9b, 0, 0, 0, 0]), true),
        ("ISATAP", with([0x2606, 0x4700, 0, 0, 0, 0x5efe]), true),
        ("ISATAP of a unique address", with([0x2606, 0x4700, 0, 0, 0x200, 0x5efe]), true),
        // Denied whatever is inside.
        ("compatible", with([0; 6]), false),
        ("translated", with([0, 0, 0, 0, 0xffff, 0]), false),
        ("local NAT64", with([0x64, 0xff9b, 1, 0, 0, 0]), false),
        ("6to4", Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1), false),
        ("Teredo server", Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 1), false),
        ("Teredo client", Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0, 0xffff, !high, !low), false),
    ]
}

#[test]
fn an_address_inside_is_judged_too() {
    let mut checked = 0;
    for (range, ..) in DENIED {
        let Ok(net) = range.parse::<ipnet::Ipv4Net>() else { continue };
        for inside in [net.network(), net.broadcast()] {
            for (form, address, _) in forms(inside) {
                assert!(!is_public(address.into()), "{form} with {inside}: {address}");
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "{checked}");
    for inside in ["1.1.1.1", "9.255.255.255", "11.0.0.0", "223.255.255.255"] {
        for (form, address, public) in forms(inside.parse().unwrap()) {
            assert_eq!(is_public(address.into()), public, "{form} with {inside}: {address}");
        }
    }
}
