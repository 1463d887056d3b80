//! What does not change between two requests to a destination: the judged URL, its host's connections, the opened secrets, headers without
//! placeholders.
//!
//! A cache (economy): an entry is used as long as the row keeps the same URL, the same bytes of secrets and the same schemes, so that a change
//! holds at once, and is forgotten after ten minutes without a request. The policy never changes within a process, so a URL that it let through once it
//! lets through again; addresses are judged at every connection.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderValue, Uri};
use moka::sync::Cache;
use signalpost_core::{Destination, DestinationId, Kept, signature::SignatureScheme};
use signalpost_vault::KeyRing;
use url::{Position, Url};

use crate::{
    EgressPolicy, UrlDenied,
    pool::{Connector, Host, Pool},
    secrets::{self, NoSecrets, Opened},
};

/// At most so many destinations are remembered; a few KiB each.
const MOST: u64 = 20_000;

/// How long one is remembered that nothing is sent to.
const IDLE: Duration = Duration::from_secs(600);

/// What requests to one destination have in common.
pub(crate) struct Plan {
    kept: Kept,
    schemes: Vec<SignatureScheme>,
    url: String,
    /// Where its connections are.
    pub(crate) host: Arc<Host>,
    /// Path and query: what stands in the first line of a request.
    pub(crate) target: Uri,
    /// The header `host`.
    pub(crate) authority: HeaderValue,
    pub(crate) opened: Opened,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum NoPlan {
    /// The URL is not allowed.
    Denied(UrlDenied),
    /// Allowed, but no URI of HTTP.
    Unusable,
    /// The secrets.
    Secrets(NoSecrets),
}

/// Plans by destination.
pub(crate) struct Plans {
    pub(crate) egress: Arc<EgressPolicy>,
    pub(crate) vault: Arc<KeyRing>,
    pub(crate) pool: Pool,
    /// For `https:`. The two differ in what their resolver lets through.
    pub(crate) tls: Connector,
    /// For `http:`.
    pub(crate) plain: Connector,
    known: Cache<DestinationId, Arc<Plan>>,
}

impl Plans {
    pub(crate) fn new(
        egress: Arc<EgressPolicy>,
        vault: Arc<KeyRing>,
        pool: Pool,
        tls: Connector,
        plain: Connector,
    ) -> Self {
        Self { egress, vault, pool, tls, plain, known: Cache::builder().max_capacity(MOST).time_to_idle(IDLE).build() }
    }

    /// That of this copy of the destination.
    pub(crate) fn of(&self, destination: &Destination) -> Result<Arc<Plan>, NoPlan> {
        let spec = &destination.spec;
        if let Some(plan) = self.known.get(&destination.id)
            && plan.url == spec.url
            && plan.kept == destination.secrets
            && plan.schemes == spec.signatures
        {
            return Ok(plan);
        }
        let plan = Arc::new(self.make(destination)?);
        self.known.insert(destination.id, Arc::clone(&plan));
        Ok(plan)
    }

    fn make(&self, destination: &Destination) -> Result<Plan, NoPlan> {
        let spec = &destination.spec;
        let url = self.egress.check_url(&spec.url).map_err(NoPlan::Denied)?;
        let (target, address, authority) = parts(&url).ok_or(NoPlan::Unusable)?;
        let opened = secrets::open(&self.vault, destination).map_err(NoPlan::Secrets)?;
        let connector = if url.scheme() == "https" { &self.tls } else { &self.plain };
        Ok(Plan {
            kept: destination.secrets.clone(),
            schemes: spec.signatures.clone(),
            url: spec.url.clone(),
            host: self.pool.host(&url[..Position::BeforePath], address, connector),
            target,
            authority,
            opened,
        })
    }
}

/// Path and query, the address without them, and the value of `host`.
fn parts(url: &Url) -> Option<(Uri, Uri, HeaderValue)> {
    // Never a fragment: it is not sent.
    let target = url[Position::BeforePath..Position::AfterQuery].parse().ok()?;
    let address = format!("{}/", &url[..Position::BeforePath]).parse().ok()?;
    // Without the port where it is the scheme's own.
    let authority = HeaderValue::from_str(&url[Position::BeforeHost..Position::BeforePath]).ok()?;
    Some((target, address, authority))
}

impl fmt::Debug for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plans")
            .field("egress", &self.egress)
            .field("vault", &self.vault)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
