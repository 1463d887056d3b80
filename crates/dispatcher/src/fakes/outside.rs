//! What stands outside: destinations that answer by script, limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use signalpost_core::{CircuitRecord, CircuitState, DeliveryId, DestinationId, classify::Answer};
use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};
use signalpost_sender::{Exchange, Outgoing};
use tokio::time::{Instant, sleep};

use crate::Exchanger;

/// How a request ends: after how long, and with what. None: the task panics.
pub(crate) type Script = Box<dyn Fn(&Outgoing<'_>) -> (Duration, Option<Answer>) + Send + Sync>;

/// A request that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub at: Duration,
    pub delivery_id: DeliveryId,
    pub destination_id: DestinationId,
    pub attempt: u32,
    pub url: String,
    pub data: Bytes,
}

/// Answers by script.
pub(crate) struct Scripted {
    pub script: Script,
    pub started: Mutex<Vec<Started>>,
    start: Instant,
}

impl Scripted {
    pub(crate) fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, started: Mutex::default(), start: Instant::now() })
    }

    pub(crate) fn started(&self) -> Vec<Started> {
        self.started.lock().unwrap().clone()
    }
}

pub(crate) const fn status(code: u16) -> Answer {
    Answer::Status { code, retry_after: None }
}

#[async_trait]
impl Exchanger for Scripted {
    async fn exchange(&self, outgoing: &Outgoing<'_>) -> Exchange {
        self.started.lock().unwrap().push(Started {
            at: self.start.elapsed(),
            delivery_id: outgoing.delivery_id,
            destination_id: outgoing.destination.id,
            attempt: outgoing.attempt,
            url: outgoing.destination.spec.url.clone(),
            data: outgoing.event.data.clone(),
        });
        let (duration, answer) = (self.script)(outgoing);
        sleep(duration).await;
        let answer = answer.expect("the script lets the task panic");
        let status_code = if let Answer::Status { code, .. } = answer { Some(code) } else { None };
        Exchange { answer, status_code, response_excerpt: Bytes::new(), error: None, duration }
    }
}

/// Grants everything but what a test forbids.
#[derive(Debug, Default)]
pub(crate) struct FakeLimits {
    pub others: Mutex<BTreeSet<DeliveryId>>,
    pub is_away: std::sync::atomic::AtomicBool,
    pub renewed: Mutex<Vec<Claim>>,
    pub released: Mutex<Vec<Claim>>,
    /// How many slots a destination has for this dispatcher; without an entry: all of them.
    pub allowed: Mutex<BTreeMap<DestinationId, u32>>,
    pub slot_uses: Mutex<Vec<SlotUse>>,
    /// How a circuit is; without an entry: closed.
    pub views: Mutex<BTreeMap<DestinationId, CircuitView>>,
    pub reports: Mutex<Vec<CircuitReport>>,
    pub shares: Mutex<Vec<u32>>,
}

/// A circuit that was never open.
pub(crate) fn closed() -> CircuitView {
    CircuitView {
        state: CircuitState::Closed,
        open_for: Duration::ZERO,
        probes_granted: 0,
        ramp: None,
        record: CircuitRecord::default(),
    }
}

impl FakeLimits {
    fn check(&self) -> Result<(), LimitsUnavailable> {
        let is_away = self.is_away.load(std::sync::atomic::Ordering::SeqCst);
        if is_away { Err(LimitsUnavailable("away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Limits for FakeLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        self.check()?;
        Ok(requests.iter().map(|r| TokenGrant::ready(r.wanted)).collect())
    }
    async fn claim(&self, _owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        self.check()?;
        let others = self.others.lock().unwrap();
        let of = |claim: &Claim| if others.contains(&claim.delivery_id) { Claimed::Others } else { Claimed::Ours };
        Ok(claims.iter().map(of).collect())
    }
    async fn renew(&self, _owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.check()?;
        self.renewed.lock().unwrap().extend(claims);
        Ok(())
    }
    async fn release(&self, _owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.check()?;
        self.released.lock().unwrap().extend(claims);
        Ok(())
    }
    async fn slots(&self, _owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        self.check()?;
        self.slot_uses.lock().unwrap().extend(uses);
        let allowed = self.allowed.lock().unwrap();
        Ok(uses.iter().map(|slot| allowed.get(&slot.destination_id).copied().unwrap_or(slot.max)).collect())
    }
    async fn circuits(&self, _: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        self.check()?;
        self.reports.lock().unwrap().extend_from_slice(reports);
        let views = self.views.lock().unwrap();
        Ok(reports.iter().map(|r| views.get(&r.destination_id).cloned().unwrap_or_else(closed)).collect())
    }
    fn set_share(&self, alive: u32) {
        self.shares.lock().unwrap().push(alive);
    }
    async fn check(&self) -> Result<(), LimitsUnavailable> {
        self.check()
    }
}
