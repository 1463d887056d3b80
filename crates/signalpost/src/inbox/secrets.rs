//! The secrets of the destinations that point at the inbox, so that it can judge signatures as their receiver would.

use std::{collections::HashMap, sync::Arc};

use axum::http::HeaderName;
use signalpost_core::{DestinationSpec, TenantId, secret::Secret, signature::SignatureScheme};
use signalpost_receiver::Verifier;
use signalpost_sender::signatures;
use signalpost_store::{Store, StoreError, read::Page};
use signalpost_vault::KeyRing;
use tokio::sync::Mutex;
use url::{Host, Url};

const PAGE: usize = 250;

/// Looked up when destinations have changed.
pub struct Secrets {
    store: Arc<dyn Store>,
    vault: Arc<KeyRing>,
    port: u16,
    known: Mutex<Option<Known>>,
}

struct Known {
    /// The state of the destinations that this was read at.
    version: u64,
    by_path: HashMap<String, Vec<Verifier>>,
}

impl Secrets {
    pub fn new(store: Arc<dyn Store>, vault: Arc<KeyRing>, port: u16) -> Self {
        Self { store, vault, port, known: Mutex::new(None) }
    }

    /// Those of the destinations whose URL has this path; none where the store does not answer.
    pub async fn at(&self, path: &str) -> Vec<Verifier> {
        let mut known = self.known.lock().await;
        // Read before the destinations are, so that a change in between is seen the next time.
        let version = *self.store.changes().borrow();
        if known.as_ref().is_none_or(|known| known.version != version) {
            match self.read().await {
                Ok(by_path) => *known = Some(Known { version, by_path }),
                Err(error) => {
                    tracing::warn!(%error, "the inbox cannot look up secrets");
                    return Vec::new();
                }
            }
        }
        known.as_ref().and_then(|known| known.by_path.get(path)).cloned().unwrap_or_default()
    }

    async fn read(&self) -> Result<HashMap<String, Vec<Verifier>>, StoreError> {
        let mut by_path = HashMap::<_, Vec<_>>::new();
        let mut after = None;
        loop {
            let page = Page { limit: PAGE, after, descending: false };
            let destinations = self.store.list_destinations(TenantId::DEFAULT, None, page).await?;
            for destination in &destinations {
                let path = inbox_path(&destination.spec.url, self.port);
                let opened = self.vault.destination(destination.tenant_id, destination.id, &destination.secrets);
                if let (Some(path), Ok(secrets)) = (path, opened) {
                    by_path.entry(path).or_default().push(verifier(&destination.spec, &secrets.current));
                }
            }
            match destinations.last() {
                Some(last) if destinations.len() == PAGE => after = Some(last.id),
                _ => return Ok(by_path),
            }
        }
    }
}

/// What its receiver would verify: every scheme, with the newest secret.
fn verifier(spec: &DestinationSpec, secret: &Secret) -> Verifier {
    let schemes = spec.signatures.iter().filter_map(|scheme| match scheme {
        SignatureScheme::Standard => Verifier::standard(secret.reveal()).ok(),
        SignatureScheme::StandardEd25519 => Verifier::standard(&signatures::public_key(secret.reveal())?).ok(),
        SignatureScheme::Hmac(scheme) => {
            let header = HeaderName::from_bytes(scheme.header.as_bytes()).ok()?;
            Some(Verifier::hmac(header, signatures::hmac(scheme, secret.reveal())))
        }
    });
    schemes.fold(Verifier::default(), Verifier::and)
}

/// The path of a URL that points at the inbox of this process.
fn inbox_path(url: &str, port: u16) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let here = match url.host()? {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    };
    let path = url.path();
    let inbox = path.strip_prefix(super::PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (here && inbox && url.port_or_known_default() == Some(port)).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_which_urls_point_at_it() {
        for (url, path) in [
            ("http://127.0.0.1:8080/dev/inbox", Some("/dev/inbox")),
            ("http://localhost:8080/dev/inbox/shop?x=1", Some("/dev/inbox/shop")),
            ("http://[::1]:8080/dev/inbox", Some("/dev/inbox")),
            ("http://127.0.0.1:8081/dev/inbox", None),
            ("http://127.0.0.1:8080/dev/inboxes", None),
            ("http://192.0.2.1:8080/dev/inbox", None),
            ("http://example.com:8080/dev/inbox", None),
        ] {
            assert_eq!(inbox_path(url, 8080).as_deref(), path, "{url}");
        }
    }
}
