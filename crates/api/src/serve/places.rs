//! Who may have a connection: so many in all, and of them so many for one address, so that one client cannot take the
//! places of all others.
//!
//! An address is one of IPv4, or the /64 that a host of IPv6 commonly has to itself. Trusted proxies have no share of
//! their own: they bring the connections of everybody.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use signalpost_telemetry::names;

use crate::quota::network;

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_per_address: usize,
    exempt: Vec<IpNet>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Which places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Those of the listener.
    All,
    /// Those of the address.
    Address,
}

impl Full {
    /// As the label of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Address => "address",
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    /// None for a proxy.
    address: Option<IpAddr>,
}

impl Places {
    /// All free.
    pub fn new(most: usize, most_per_address: usize, exempt: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { most, most_per_address, exempt, taken: Mutex::default() })
    }

    /// Takes one for a connection from that address.
    ///
    /// # Errors
    /// There is none left.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Full> {
        let peer = peer.to_canonical();
        let is_proxy = self.exempt.iter().any(|proxies| proxies.contains(&peer));
        let address = (!is_proxy).then(|| network(Some(peer)));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most {
            return Err(Full::All);
        }
        if let Some(address) = address {
            let of_address = taken.by_address.entry(address).or_default();
            if *of_address >= self.most_per_address {
                return Err(Full::Address);
            }
            *of_address += 1;
        }
        taken.all += 1;
        metrics::gauge!(names::HTTP_CONNECTIONS).increment(1);
        Ok(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(address) = self.address
            && let Some(of_address) = taken.by_address.get_mut(&address)
        {
            *of_address -= 1;
            if *of_address == 0 {
                taken.by_address.remove(&address);
            }
        }
        metrics::gauge!(names::HTTP_CONNECTIONS).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(places: &Arc<Places>, address: &str) -> Result<Place, Full> {
        places.take(address.parse().unwrap())
    }

    #[test]
    fn an_address_has_a_share_and_gives_it_back() {
        let places = Places::new(5, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let first = from(&places, "192.0.2.1").unwrap();
        let second = from(&places, "::ffff:192.0.2.1").unwrap();
        assert_eq!(from(&places, "192.0.2.1").unwrap_err(), Full::Address);
        let other = from(&places, "2001:db8::1").unwrap();
        let same_net = from(&places, "2001:db8::2").unwrap();
        assert_eq!(from(&places, "2001:db8:0:0:ffff::1").unwrap_err(), Full::Address);
        let proxy = from(&places, "10.0.0.1").unwrap();
        assert_eq!(from(&places, "10.0.0.1").unwrap_err(), Full::All);
        drop(first);
        let again = from(&places, "192.0.2.1").unwrap();
        drop((second, other, same_net, proxy, again));
        let taken = places.taken.lock().unwrap();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn a_proxy_takes_more_than_a_share() {
        let places = Places::new(3, 1, vec!["10.0.0.0/8".parse().unwrap()]);
        let held: Vec<Place> = (0..3).map(|_| from(&places, "10.0.0.1").unwrap()).collect();
        assert_eq!(from(&places, "192.0.2.1").unwrap_err(), Full::All);
        drop(held);
    }
}
