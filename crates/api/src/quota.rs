//! What tenants and strangers may use up (economy of the operator, no wall between tenants).
//!
//! Rates are counted by each process for itself: N api processes let through N times as much, as `docs/limits.md` says. So
//! nothing has to be asked elsewhere for an event, and a rate holds while Redis is away. Destinations are counted in the store; two
//! that are created at the same moment may both be the last.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::{NoOpMiddleware, StateInformationMiddleware},
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use signalpost_core::{Clock, Tenant, TenantId, tenant::Quotas};

use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// Above so many addresses those are forgotten that may register again anyhow; where that does not help, nobody registers.
const MOST_ADDRESSES: usize = 50_000;

/// Our clock, for the library.
#[derive(Debug, Clone)]
struct ByClock(Arc<dyn Clock>);

impl GovernorClock for ByClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How a quota stands, as draft-ietf-httpapi-ratelimit-headers-10 tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The most at once.
    most: u32,
    /// The time, in seconds, in which so much comes back.
    window: u64,
    /// What is left.
    remaining: u32,
    /// The time, in seconds, after which there is more.
    more_in: u64,
}

impl RateLimit {
    /// Writes the fields `RateLimit-Policy` and `RateLimit`.
    pub fn write(self, headers: &mut HeaderMap) {
        let Self { most, window, remaining, more_in } = self;
        for (name, value) in [
            ("ratelimit-policy", format!("\"events\";q={most};w={window}")),
            ("ratelimit", format!("\"events\";r={remaining};t={more_in}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

type Direct = RateLimiter<NotKeyed, InMemoryState, ByClock, StateInformationMiddleware>;

/// The tokens of a tenant.
#[derive(Debug)]
struct Bucket {
    per_second: NonZeroU32,
    burst: NonZeroU32,
    tokens: Direct,
}

impl Bucket {
    fn stand(&self, remaining: u32, more_in: u64) -> RateLimit {
        let window = u64::from(self.burst.get()).div_ceil(self.per_second.get().into());
        RateLimit { most: self.burst.get(), window, remaining, more_in }
    }
}

/// The events per second of tenants that have such a quota.
#[derive(Debug)]
pub struct EventQuotas {
    clock: ByClock,
    /// There are as many as tenants to which the operator gave a quota.
    buckets: Mutex<HashMap<TenantId, Arc<Bucket>>>,
}

impl EventQuotas {
    /// All tokens are there.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock: ByClock(clock), buckets: Mutex::default() }
    }

    /// Takes the tokens of so many events. None where the tenant has no quota.
    ///
    /// # Errors
    /// 429: there are not enough now. 422: there never are so many at once.
    pub fn take(&self, tenant: &Tenant, events: usize) -> Result<Option<RateLimit>, Problem> {
        let Some(per_second) = tenant.spec.quotas.events_per_second else { return Ok(None) };
        let Some(events) = u32::try_from(events).ok().and_then(NonZeroU32::new) else { return Ok(None) };
        let bucket = self.bucket(tenant.id, per_second, tenant.spec.quotas);
        match bucket.tokens.check_n(events) {
            Ok(Ok(left)) => {
                let remaining = left.remaining_burst_capacity();
                let more_in = u64::from(remaining < bucket.burst.get());
                Ok(Some(bucket.stand(remaining, more_in)))
            }
            Ok(Err(not_yet)) => {
                let wait = not_yet.wait_time_from(self.clock.now());
                let seconds = seconds(wait);
                Err(Problem {
                    retry_after: Some(seconds),
                    // What is left is not told by the library; it is less than what was asked for.
                    quota: Some(bucket.stand(0, seconds.into())),
                    ..Problem::new(
                        Code::TooManyRequests,
                        format!("The tenant may post {per_second} events per second, and {} at once.", bucket.burst),
                    )
                })
            }
            Err(_) => Err(Problem::new(
                Code::QuotaExceeded,
                format!("These are {events} events; the tenant may post {} at once.", bucket.burst),
            )),
        }
    }

    fn bucket(&self, tenant: TenantId, per_second: NonZeroU32, quotas: Quotas) -> Arc<Bucket> {
        let burst = quotas.events_burst.unwrap_or(per_second);
        let make = || {
            let quota = Quota::per_second(per_second).allow_burst(burst);
            let tokens = RateLimiter::direct_with_clock(quota, self.clock.clone());
            Arc::new(Bucket { per_second, burst, tokens: tokens.with_middleware() })
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(tenant).or_insert_with(make);
        if bucket.per_second != per_second || bucket.burst != burst {
            *bucket = make();
        }
        Arc::clone(bucket)
    }
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole.max(1)).unwrap_or(u32::MAX)
}

/// Whether the tenant may have one destination more.
///
/// # Errors
/// 422; the store is away.
pub async fn check_destinations(state: &AppState, tenant: &Tenant) -> Result<(), Problem> {
    let Some(most) = tenant.spec.quotas.destinations else { return Ok(()) };
    if state.ports.store.count_destinations(tenant.id).await? < u64::from(most) {
        return Ok(());
    }
    Err(Problem::new(Code::QuotaExceeded, format!("The tenant may have {most} destinations, and has them.")))
}

/// Whether an event's data is small enough for the tenant.
///
/// # Errors
/// 413.
pub fn check_event(quotas: &Quotas, data: &[u8]) -> Result<(), Problem> {
    match quotas.event_bytes {
        Some(most) if data.len() > most.get() as usize => {
            let detail = format!("The event's data is larger than the {most} bytes that the tenant may post.");
            Err(Problem::new(Code::PayloadTooLarge, detail))
        }
        _ => Ok(()),
    }
}

type Keyed = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, ByClock, NoOpMiddleware<Duration>>;

/// How often strangers register, by address.
#[derive(Debug)]
pub struct Registrations {
    clock: ByClock,
    per_hour: Option<NonZeroU32>,
    tokens: Option<Keyed>,
}

impl Registrations {
    /// So often, each.
    pub fn new(per_hour: Option<NonZeroU32>, clock: Arc<dyn Clock>) -> Self {
        let clock = ByClock(clock);
        let quota = per_hour.map(Quota::per_hour);
        let tokens = quota.map(|quota| RateLimiter::new(quota, HashMapStateStore::default(), clock.clone()));
        Self { clock, per_hour, tokens }
    }

    /// One more from that address, or from its network.
    ///
    /// # Errors
    /// 429.
    pub fn take(&self, address: Option<IpAddr>) -> Result<(), Problem> {
        let (Some(tokens), Some(per_hour)) = (&self.tokens, self.per_hour) else { return Ok(()) };
        if tokens.len() >= MOST_ADDRESSES {
            tokens.retain_recent();
            tokens.shrink_to_fit();
        }
        let refused = |seconds| Problem {
            retry_after: Some(seconds),
            ..Problem::new(
                Code::TooManyRequests,
                format!("{per_hour} tenants may be registered per hour from one address."),
            )
        };
        if tokens.len() >= MOST_ADDRESSES {
            return Err(refused(60));
        }
        tokens
            .check_key(&network(address))
            .map_err(|not_yet| refused(seconds(not_yet.wait_time_from(self.clock.now()))))
    }
}

/// Who has one address of IPv6 has 2^64.
pub fn network(address: Option<IpAddr>) -> IpAddr {
    match address {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(address)) => IpAddr::V4(address),
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}
