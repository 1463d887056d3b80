//! The limits port on Redis.
//!
//! Every call is bounded by 50 ms, goes for a whole batch, and counts on Redis's own clock. Every key expires, but for the mark that says when
//! the data were begun. With Redis empty, slow, gone or restarted each of them goes on, and is back by itself:
//!
//! | what | while Redis is away | afterwards |
//! |---|---|---|
//! | tokens | a part of the rate, from an empty bucket, after a second ([`tokens`]) | what was used is told |
//! | slots | an equal part ([`slots`]) | what is held is told |
//! | circuits | one's own picture ([`circuits`]) | the later picture holds |
//! | claims ([`claims`]) | none can be had: they are for economy | claimed again |

mod circuits;
mod claims;
mod inspect;
mod link;
mod reserves;
mod scripts;
mod slots;
mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use signalpost_core::Clock;
use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};

pub use crate::inspect::{Inspection, inspect};
use crate::{circuits::Circuits, link::Link, tokens::Tokens};

/// The address is none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the address of Redis does not work: {0}")]
pub struct AddressError(String);

/// Limits that all processes with the same Redis share.
#[derive(Debug)]
pub struct RedisLimits {
    link: Link,
    clock: Arc<dyn Clock>,
    tokens: Tokens,
    circuits: Circuits,
}

impl RedisLimits {
    /// Connects (`redis://…` or `rediss://…`), or goes on trying in the background.
    ///
    /// # Errors
    /// The address cannot be understood. That Redis is away is no error.
    pub async fn connect(url: &str, clock: Arc<dyn Clock>) -> Result<Self, AddressError> {
        let client = redis::Client::open(url).map_err(|error| AddressError(error.to_string()))?;
        Ok(Self {
            link: Link::start(client, Arc::clone(&clock)).await,
            tokens: Tokens::default(),
            circuits: Circuits::new(Arc::clone(&clock)),
            clock,
        })
    }
}

#[async_trait]
impl Limits for RedisLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.tokens.take(&self.link, self.clock.elapsed(), requests).await)
    }

    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        claims::claim(&self.link, owner, claims).await
    }

    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        claims::renew(&self.link, owner, claims).await
    }

    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        claims::release(&self.link, owner, claims).await
    }

    async fn slots(&self, owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        Ok(slots::tell(&self.link, owner, uses).await)
    }

    async fn circuits(&self, _: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        Ok(self.circuits.report(&self.link, reports).await)
    }

    fn set_share(&self, alive: u32) {
        self.link.set_alive(alive);
    }

    async fn check(&self) -> Result<(), LimitsUnavailable> {
        self.link.call(async |_, session| redis::cmd("PING").query_async::<()>(&mut session.connection).await).await
    }
}
