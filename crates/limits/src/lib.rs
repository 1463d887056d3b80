//! The limits port: what dispatchers share about a destination at this moment.
//!
//! Tokens of a destination's rate limit are for a promise (I7); claims are for economy: they keep a stalled owner and
//! its successor from sending the same attempt twice, but every rule of correctness holds without them.
//!
//! Slots and circuits are shared for economy and isolation: a dispatcher that is alone with its own picture of them
//! does no harm to what is promised of deliveries.

pub mod census;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod local;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use signalpost_core::{CircuitPolicy, CircuitRecord, CircuitState, DeliveryId, DestinationId, destination::RateLimit};

/// The shared limits are away or slow (50 ms). Callers go on without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the limits are unavailable: {0}")]
pub struct LimitsUnavailable(pub String);

/// How many tokens of a destination somebody wants now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenRequest {
    /// Whose bucket.
    pub destination_id: DestinationId,
    /// Its present size and rate; a changed one applies at once.
    pub limit: RateLimit,
    /// At least 1.
    pub wanted: u32,
}

/// How long before it comes a token may be granted. Who asks that much ahead loses none by being late: a bucket that holds
/// its burst fills no more.
pub const TOKENS_AHEAD: Duration = Duration::from_millis(50);

/// What one got. A granted token may be used from when it is ready, for 50 ms; then it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenGrant {
    /// 0 to `wanted`.
    pub granted: u32,
    /// So many of them are ready now.
    pub ready: u32,
    /// How long until the first of the others is, ...
    pub next_in: Duration,
    /// ... and from then on between two.
    pub every: Duration,
    /// When fewer than wanted: how long until there is more to be had.
    pub retry_after: Duration,
}

impl TokenGrant {
    /// All that was wanted, to be used now.
    pub const fn ready(granted: u32) -> Self {
        Self { granted, ready: granted, next_in: Duration::ZERO, every: Duration::ZERO, retry_after: Duration::ZERO }
    }

    /// None before that.
    pub const fn none(retry_after: Duration) -> Self {
        Self { retry_after, ..Self::ready(0) }
    }

    /// For each of the granted, how long until it is ready.
    pub fn ready_in(self) -> impl Iterator<Item = Duration> {
        (0..self.granted).map(move |number| self.whole_in(number))
    }

    /// How long until that token is whole, the first being 0, granted or not.
    pub fn whole_in(&self, number: u32) -> Duration {
        match number.checked_sub(self.ready) {
            None => Duration::ZERO,
            Some(later) => self.next_in.saturating_add(self.every.saturating_mul(later)),
        }
    }
}

/// A request that is about to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Of which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
}

/// Who claims: one running process (random at its start).
pub type Owner = u64;

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours (again).
    Ours,
    /// Another process has it, and lives or died less than [`CLAIM_LEASE`] ago. Do not send: park the delivery
    /// for that long, as a suspect.
    Others,
}

/// How long a claim outlives its last renewal.
pub const CLAIM_LEASE: Duration = Duration::from_secs(5);

/// What one dispatcher does with a destination's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotUse {
    /// Whose slots.
    pub destination_id: DestinationId,
    /// How many there are for all dispatchers together: its `max_in_flight`.
    pub max: u32,
    /// Requests of this dispatcher that are out.
    pub held: u32,
    /// How many more it would send now. Zero, with nothing held: it needs none, and its share is free at once.
    pub wanted: u32,
}

/// How long a share of slots outlives the last call that named it.
pub const SLOT_LEASE: Duration = Duration::from_secs(5);

/// What one dispatcher saw of a destination since its last report. Only destinations that failed in the last 30 s, or whose
/// circuit was not closed or was closing by its ramp, are reported.
///
/// Who begins to report again tells the successes of the last 30 s, and one at least if there was any since its last
/// report, for as long as a row of failures is kept: else that row is longer, and a ratio higher, than what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitReport {
    /// Whose circuit.
    pub destination_id: DestinationId,
    /// Its present policy. Not enabled: the circuit is closed, and forgotten.
    pub policy: CircuitPolicy,
    /// Attempts that the destination answered (2xx, and 4xx but 429: it works).
    pub successes: u32,
    /// Attempts that count against it: connection, TLS, DNS, time-out, 5xx.
    pub failures: u32,
    /// The latest of all these was a success: the row of failures is broken.
    pub succeeded_last: bool,
    /// What came of probes among them; a probe that ended otherwise (429) is neither.
    pub probes_succeeded: u32,
    /// As above.
    pub probes_failed: u32,
    /// Probes that ended without telling anything: their places are free again.
    pub probes_void: u32,
    /// How many probes it could send now.
    pub probes_wanted: u32,
    /// How long a probe may take: its place is free again after that.
    pub probe_timeout: Duration,
    /// The last failure, for a person: `503`, `connection refused`.
    pub reason: Option<String>,
    /// How often the circuit has opened by what the store keeps (`Destination::circuit`): counting goes on from there when
    /// the shared state was lost.
    pub trips: u32,
    /// The version of the destination that the reporter knows. A newer one than any before has an open circuit tried at once:
    /// somebody changed or resumed it.
    pub version: u32,
}

/// A circuit, as a dispatcher needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitView {
    /// Where it is.
    pub state: CircuitState,
    /// Open: for how much longer. Else zero.
    pub open_for: Duration,
    /// Half-open: probes that the caller may send now, out of those that it wanted.
    pub probes_granted: u32,
    /// Closed not long ago: requests that all dispatchers together may have out now, and growing. None: as many as usual.
    pub ramp: Option<u32>,
    /// What the store keeps of it: state, since, trips, reason. The same for as long as the state is. Times are of the clock
    /// of the shared state, so that records of several dispatchers have an order.
    pub record: CircuitRecord,
}

/// The port. Every call is one round trip for a whole batch and bounded by 50 ms.
#[async_trait]
pub trait Limits: Debug + Send + Sync + 'static {
    /// Takes tokens, a batch at once; grants are in the order of the requests.
    ///
    /// # Errors
    /// The shared state is away; the implementation falls back to a local share where it can, so callers see this only
    /// where it cannot.
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable>;

    /// Claims attempts for `owner`, a batch at once; answers are in the order of the claims.
    ///
    /// # Errors
    /// The shared state is away: send without.
    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable>;

    /// Extends claims whose requests are still out. Called every [`CLAIM_LEASE`] / 3.
    ///
    /// # Errors
    /// The shared state is away.
    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable>;

    /// Forgets claims whose outcome is written.
    ///
    /// # Errors
    /// The shared state is away; they expire by themselves.
    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable>;

    /// Tells what one does with slots, a batch at once, and learns how many requests one may have out in all, per destination, for
    /// [`SLOT_LEASE`]: in the order of the uses. Fewer than are held means: start none until enough have ended. Never more than `max`
    /// over all living owners together, but for what was held already; fair among those who want some. Called when more is wanted than is allowed, and every [`SLOT_LEASE`] / 3 for what is held
    /// or allowed.
    ///
    /// # Errors
    /// The shared state is away; the implementation falls back to a local share where it can.
    async fn slots(&self, owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable>;

    /// Reports what was seen of destinations, a batch at once, and learns how their circuits are, in the order of the reports.
    ///
    /// # Errors
    /// The shared state is away; the implementation falls back to its own picture where it can.
    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable>;

    /// How many dispatchers live, this one included, for local shares while the shared state is away: at least 1. Told every second;
    /// who was not told for [`census::Census`] to know has the least share.
    fn set_share(&self, alive: u32);

    /// Whether the shared state can be reached now, for health.
    ///
    /// # Errors
    /// It cannot.
    async fn check(&self) -> Result<(), LimitsUnavailable>;
}
