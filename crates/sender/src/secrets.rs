//! The secrets of destinations, opened and parsed once.
//!
//! A cache (economy): an entry is used as long as the row keeps the same bytes and the same schemes, so that a change holds at once, and is forgotten
//! after ten minutes without a request.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use moka::sync::Cache;
use signalpost_core::{
    Destination, DestinationId, Kept,
    secret::{Auth, Secret},
    signature::SignatureScheme,
};
use signalpost_vault::{KeyRing, OpenError};
use zeroize::Zeroizing;

use crate::{
    headers,
    scrub::Scrubber,
    signatures::{Signers, Unfit},
};

/// At most so many destinations are remembered; a few KiB each.
const MOST: u64 = 20_000;

/// How long one is remembered that nothing is sent to.
const IDLE: Duration = Duration::from_secs(600);

/// What is needed of a destination's secrets to make a request.
pub(crate) struct Opened {
    /// Further headers; values may hold placeholders.
    pub(crate) headers: Vec<(HeaderName, Secret)>,
    /// The header that says who sends.
    pub(crate) auth: Option<(HeaderName, HeaderValue)>,
    /// Signs.
    pub(crate) signers: Signers,
    /// Knows what a response must not show.
    pub(crate) scrubber: Scrubber,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum NoSecrets {
    /// They do not open. An operator's affair.
    Closed(OpenError),
    /// They cannot sign. Refused when it was set.
    Unfit(Unfit),
}

struct Entry {
    kept: Kept,
    schemes: Vec<SignatureScheme>,
    opened: Arc<Opened>,
}

/// Opened secrets by destination.
pub(crate) struct Secrets {
    vault: Arc<KeyRing>,
    known: Cache<DestinationId, Arc<Entry>>,
}

impl Secrets {
    pub(crate) fn new(vault: Arc<KeyRing>) -> Self {
        Self { vault, known: Cache::builder().max_capacity(MOST).time_to_idle(IDLE).build() }
    }

    pub(crate) const fn vault(&self) -> &Arc<KeyRing> {
        &self.vault
    }

    /// Those of this copy of the destination.
    pub(crate) fn of(&self, destination: &Destination) -> Result<Arc<Opened>, NoSecrets> {
        let schemes = &destination.spec.signatures;
        if let Some(entry) = self.known.get(&destination.id)
            && entry.kept == destination.secrets
            && entry.schemes == *schemes
        {
            return Ok(Arc::clone(&entry.opened));
        }
        let opened = Arc::new(self.open(destination)?);
        let (kept, schemes) = (destination.secrets.clone(), schemes.clone());
        self.known.insert(destination.id, Arc::new(Entry { kept, schemes, opened: Arc::clone(&opened) }));
        Ok(opened)
    }

    fn open(&self, destination: &Destination) -> Result<Opened, NoSecrets> {
        let secrets = self
            .vault
            .destination(destination.tenant_id, destination.id, &destination.secrets)
            .map_err(NoSecrets::Closed)?;
        let signers = Signers::new(&destination.spec.signatures, &secrets).map_err(NoSecrets::Unfit)?;
        let mut hidden: Vec<&str> =
            secrets.headers.values().flat_map(|value| headers::literals(value.reveal())).collect();
        let auth = secrets.auth.as_ref().and_then(auth_header);
        let shown = auth.as_ref().and_then(|(_, value)| value.to_str().ok());
        hidden.extend(shown);
        hidden.extend(secrets.auth.as_ref().map(|auth| match auth {
            Auth::Basic { password: secret, .. }
            | Auth::Bearer { token: secret }
            | Auth::ApiKey { value: secret, .. } => secret.reveal(),
        }));
        let scrubber = Scrubber::new(hidden);
        // What is no name of a header was refused when it was set.
        let headers = secrets
            .headers
            .into_iter()
            .filter_map(|(name, value)| Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value)));
        Ok(Opened { headers: headers.collect(), auth, signers, scrubber })
    }
}

/// The header of credentials; none where a value is none of a header, which is refused when it is set.
fn auth_header(auth: &Auth) -> Option<(HeaderName, HeaderValue)> {
    let authorization = |scheme: &str, credentials: &str| {
        let text = Zeroizing::new(format!("{scheme} {credentials}"));
        Some((AUTHORIZATION, HeaderValue::from_str(&text).ok()?))
    };
    let (name, mut value) = match auth {
        Auth::Basic { username, password } => {
            let pair = Zeroizing::new(format!("{username}:{}", password.reveal()));
            authorization("Basic", &Zeroizing::new(STANDARD.encode(pair.as_bytes())))
        }
        Auth::Bearer { token } => authorization("Bearer", token.reveal()),
        Auth::ApiKey { header, value } => {
            let name = HeaderName::from_bytes(header.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.reveal()).ok()?))
        }
    }?;
    value.set_sensitive(true);
    Some((name, value))
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("vault", &self.vault).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
