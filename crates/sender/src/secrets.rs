//! The secrets of destinations, opened and parsed. Costly enough to be done once ([`crate::plan`]).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use signalpost_core::{Destination, secret::Auth};
use signalpost_vault::{KeyRing, OpenError};
use zeroize::Zeroizing;

use crate::{
    headers::{self, Template},
    scrub::Scrubber,
    signatures::{Signers, Unfit},
};

/// What is needed of a destination's secrets to make a request.
pub(crate) struct Opened {
    /// Further headers.
    pub(crate) headers: Vec<(HeaderName, Template)>,
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

/// Those of this copy of the destination.
pub(crate) fn open(vault: &KeyRing, destination: &Destination) -> Result<Opened, NoSecrets> {
    let secrets =
        vault.destination(destination.tenant_id, destination.id, &destination.secrets).map_err(NoSecrets::Closed)?;
    let signers = Signers::new(&destination.spec.signatures, &secrets).map_err(NoSecrets::Unfit)?;
    let mut hidden: Vec<&str> = secrets.headers.values().flat_map(|value| headers::literals(value.reveal())).collect();
    let auth = secrets.auth.as_ref().and_then(auth_header);
    let shown = auth.as_ref().and_then(|(_, value)| value.to_str().ok());
    hidden.extend(shown);
    hidden.extend(secrets.auth.as_ref().map(|auth| match auth {
        Auth::Basic { password: secret, .. } | Auth::Bearer { token: secret } | Auth::ApiKey { value: secret, .. } => {
            secret.reveal()
        }
    }));
    let scrubber = Scrubber::new(hidden);
    // What is no header was refused when it was set.
    let headers = secrets
        .headers
        .into_iter()
        .filter_map(|(name, value)| Some((HeaderName::from_bytes(name.as_bytes()).ok()?, Template::new(value)?)));
    Ok(Opened { headers: headers.collect(), auth, signers, scrubber })
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

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
