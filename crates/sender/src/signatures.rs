//! What requests are signed with: the schemes of a destination, each with every secret that signs.
//!
//! During a rotation `webhook-signature` holds one signature per active secret. A header of the `hmac` scheme holds that of the newest alone: its
//! receivers compare the whole header. A receiver of such a header learns the new secret first, and takes both for a while.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use signalpost_core::{
    DestinationSecrets, Entropy, Timestamp,
    secret::Secret,
    signature::{self, DigestEncoding, HmacScheme, SignatureScheme},
};
use signalpost_signing::{Canonical, Encoding, HmacHeader, SIGNATURE_HEADER, SecretError, SigningKey};
use zeroize::Zeroizing;

/// The most characters of a secret that signs with `hmac` alone.
pub const MAX_TEXT: usize = 256;

const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);

/// Why a secret is none for the schemes of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// `standard` signs with another kind.
    #[error("{0}, as the scheme `standard` signs with it")]
    Standard(SecretError),
    /// `standard_ed25519` signs with another kind.
    #[error("{0}, as the scheme `standard_ed25519` signs with it")]
    Ed25519(SecretError),
    /// Not of a length that `hmac` takes, or with NUL in it.
    #[error("must have 1 to {MAX_TEXT} characters, none of them NUL")]
    Text,
}

/// Judges a secret by what it is to sign with.
///
/// # Errors
/// It cannot sign with one of them.
pub fn check(schemes: &[SignatureScheme], secret: &str) -> Result<(), Unfit> {
    if !(1..=MAX_TEXT).contains(&secret.chars().count()) || secret.contains('\0') {
        return Err(Unfit::Text);
    }
    schemes.iter().try_for_each(|scheme| match scheme {
        SignatureScheme::Standard => signalpost_signing::Secret::parse(secret).map(drop).map_err(Unfit::Standard),
        SignatureScheme::StandardEd25519 => SigningKey::parse(secret).map(drop).map_err(Unfit::Ed25519),
        SignatureScheme::Hmac(_) => Ok(()),
    })
}

/// A new secret for these schemes: `whsk_…` where one of them is asymmetric, else `whsec_…`; 32 random bytes.
pub fn make(schemes: &[SignatureScheme], entropy: &dyn Entropy) -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(&mut *bytes);
    if schemes.contains(&SignatureScheme::StandardEd25519) {
        return Secret::new(SigningKey::from_seed(&bytes).reveal());
    }
    // 32 bytes are a secret.
    signalpost_signing::Secret::from_bytes(&*bytes)
        .map_or_else(|_| Secret::new(""), |secret| Secret::new(secret.reveal()))
}

/// What receivers verify `v1a` with: `whpk_…`, of a secret that is `whsk_…`.
pub fn public_key(secret: &str) -> Option<String> {
    SigningKey::parse(secret).ok().map(|key| key.public().reveal())
}

/// A header of that scheme, made or verified with that secret.
pub fn hmac(scheme: &HmacScheme, secret: &str) -> HmacHeader {
    let encoding = match scheme.encoding {
        DigestEncoding::Hex => Encoding::Hex,
        DigestEncoding::Base64 => Encoding::Base64,
    };
    let canonical = match scheme.canonical {
        signature::Canonical::Raw => Canonical::Raw,
        signature::Canonical::SortedKeys => Canonical::SortedKeys,
    };
    HmacHeader::new(secret.as_bytes(), scheme.prefix.as_str(), encoding, canonical)
}

/// The schemes of a destination and its secrets, parsed and keyed.
pub(crate) struct Signers {
    /// Of `webhook-signature`, newest first, each until it ends.
    standard: Vec<(Standard, Option<Timestamp>)>,
    hmac: Vec<(HeaderName, HmacHeader)>,
}

enum Standard {
    Symmetric(signalpost_signing::Secret),
    Ed25519(SigningKey),
}

impl Signers {
    /// Of a destination. An earlier secret that is none for its schemes does not sign.
    ///
    /// # Errors
    /// The newest is none for its schemes.
    pub(crate) fn new(schemes: &[SignatureScheme], secrets: &DestinationSecrets) -> Result<Self, Unfit> {
        check(schemes, secrets.current.reveal())?;
        let all = std::iter::once((secrets.current.reveal(), None))
            .chain(secrets.previous.iter().map(|previous| (previous.secret.reveal(), Some(previous.expires_at))));
        let mut standard = Vec::new();
        for (text, until) in all {
            for scheme in schemes {
                let key = match scheme {
                    SignatureScheme::Standard => signalpost_signing::Secret::parse(text).ok().map(Standard::Symmetric),
                    SignatureScheme::StandardEd25519 => SigningKey::parse(text).ok().map(Standard::Ed25519),
                    SignatureScheme::Hmac(_) => None,
                };
                standard.extend(key.map(|key| (key, until)));
            }
        }
        let hmac = schemes.iter().filter_map(|scheme| match scheme {
            // The name was judged when it was set.
            SignatureScheme::Hmac(scheme) => Some((
                HeaderName::from_bytes(scheme.header.as_bytes()).ok()?,
                self::hmac(scheme, secrets.current.reveal()),
            )),
            _ => None,
        });
        Ok(Self { standard, hmac: hmac.collect() })
    }

    /// Adds the signatures of one request.
    pub(crate) fn sign(&self, headers: &mut HeaderMap, id: &str, now: Timestamp, body: &[u8]) {
        let mut sorted: Option<Cow<'_, [u8]>> = None;
        for (name, hmac) in &self.hmac {
            let value = match hmac.canonical() {
                Canonical::Raw => hmac.sign_canonical(body),
                Canonical::SortedKeys => {
                    hmac.sign_canonical(sorted.get_or_insert_with(|| Canonical::SortedKeys.of(body)))
                }
            };
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        let active = self.standard.iter().filter(|(_, until)| until.is_none_or(|until| until > now));
        let signatures = active.map(|(key, _)| match key {
            Standard::Symmetric(secret) => secret.sign(id, now.as_secs(), body),
            Standard::Ed25519(key) => key.sign(id, now.as_secs(), body),
        });
        // Nearly always there is one, which becomes the value as it is.
        let all = signatures.reduce(|all, signature| all + " " + &signature);
        if let Some(value) = all.and_then(|all| HeaderValue::try_from(all).ok()) {
            headers.insert(WEBHOOK_SIGNATURE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use signalpost_core::secret::PreviousSecret;

    use super::*;

    const V1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const V1A: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    fn github() -> SignatureScheme {
        SignatureScheme::Hmac(HmacScheme {
            header: "X-Hub-Signature-256".into(),
            prefix: "sha256=".into(),
            encoding: DigestEncoding::Hex,
            canonical: signature::Canonical::Raw,
        })
    }

    fn signed(schemes: &[SignatureScheme], secrets: &DestinationSecrets, at: i64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        Signers::new(schemes, secrets).unwrap().sign(&mut headers, "evt_1", Timestamp::from_micros(at), b"{}");
        headers
    }

    #[test]
    fn a_secret_fits_its_schemes() {
        use SignatureScheme::{Standard, StandardEd25519};
        for (schemes, secret, fits) in [
            (&[Standard][..], V1, true),
            (&[Standard, github()], V1, true),
            (&[Standard], V1A, false),
            (&[Standard], "plain", false),
            (&[StandardEd25519], V1A, true),
            (&[StandardEd25519], V1, false),
            (&[Standard, StandardEd25519], V1, false),
            (&[github()], "plain", true),
            (&[github()], V1, true),
            (&[github()], "", false),
            (&[github()], &"x".repeat(257), false),
        ] {
            assert_eq!(check(schemes, secret).is_ok(), fits, "{schemes:?} {secret}");
        }
        assert_eq!(
            check(&[Standard], V1A).unwrap_err().to_string(),
            "must begin with `whsec_`, as the scheme `standard` signs with it"
        );
    }

    #[test]
    fn a_new_secret_fits_its_schemes() {
        use signalpost_runtime::SystemEntropy;
        for schemes in [&[SignatureScheme::Standard][..], &[SignatureScheme::StandardEd25519], &[github()]] {
            assert_eq!(check(schemes, make(schemes, &SystemEntropy).reveal()), Ok(()));
        }
        assert!(public_key(make(&[SignatureScheme::StandardEd25519], &SystemEntropy).reveal()).is_some());
        assert_eq!(public_key(V1), None);
    }

    #[test]
    fn every_active_secret_signs_with_what_it_fits() {
        let other = signalpost_signing::Secret::from_bytes(&[7; 32]).unwrap();
        let mut secrets = DestinationSecrets::signing(Secret::new(other.reveal()));
        let previous =
            |text: &str, at| PreviousSecret { secret: Secret::new(text), expires_at: Timestamp::from_micros(at) };
        secrets.previous = vec![previous(V1, 20), previous(V1A, 20), previous("plain", 20)];
        let schemes = [SignatureScheme::Standard, github()];
        let old = signalpost_signing::Secret::parse(V1).unwrap();
        let headers = signed(&schemes, &secrets, 19);
        assert_eq!(
            headers["webhook-signature"],
            [other.sign("evt_1", 0, b"{}"), old.sign("evt_1", 0, b"{}")].join(" ")
        );
        let newest = hmac(
            match &schemes[1] {
                SignatureScheme::Hmac(scheme) => scheme,
                _ => unreachable!(),
            },
            &other.reveal(),
        );
        assert!(newest.verify(b"{}", headers["x-hub-signature-256"].to_str().unwrap()));
        assert_eq!(signed(&schemes, &secrets, 20)["webhook-signature"], other.sign("evt_1", 0, b"{}"));
        // Without a standard scheme there is no header of it.
        assert_eq!(signed(&schemes[1..], &secrets, 0).len(), 1);
    }
}
