//! Signs requests, as a tenant's `ingest_signature` asks for.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use signalpost_core::{Clock as _, Entropy as _, Secret};
use signalpost_runtime::{SystemClock, SystemEntropy};
use signalpost_signing::{HmacHeader, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use signalpost_wiring::Failure;

use crate::scheme::Scheme;

/// Signs each request anew.
#[derive(Debug)]
pub enum Signer {
    Standard(signalpost_signing::Secret),
    Hmac(HeaderName, HmacHeader),
}

impl Signer {
    pub fn new(scheme: &Scheme, secret: &Secret) -> Result<Self, Failure> {
        match scheme.hmac(secret.reveal()) {
            Some((header, hmac)) => Ok(Self::Hmac(header, hmac)),
            None => signalpost_signing::Secret::parse(secret.reveal())
                .map(Self::Standard)
                .map_err(|error| Failure::setting(format!("--sign-secret: {error}"))),
        }
    }

    /// Nothing but the body is signed, so that a repetition looks the same.
    pub fn is_timeless(&self) -> bool {
        matches!(self, Self::Hmac(..))
    }

    /// The headers of a request with this body.
    pub fn sign(&self, body: &[u8]) -> HeaderMap {
        match self {
            Self::Standard(secret) => {
                let mut id = [0; 16];
                SystemEntropy.fill(&mut id);
                let id = format!("msg_{:032x}", u128::from_be_bytes(id));
                let at = SystemClock::new().now().as_secs();
                let signature = secret.sign(&id, at, body);
                [(ID_HEADER, id), (TIMESTAMP_HEADER, at.to_string()), (SIGNATURE_HEADER, signature)]
                    .into_iter()
                    .filter_map(|(name, value)| {
                        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
                    })
                    .collect()
            }
            Self::Hmac(name, hmac) => {
                HeaderValue::try_from(hmac.sign(body)).into_iter().map(|value| (name.clone(), value)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use signalpost_signing::{TOLERANCE, verify};

    use super::*;

    #[test]
    fn each_request_is_signed_anew() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secret = Secret::new(text);
        let signer = Signer::new(&Scheme::Standard, &secret).unwrap();
        let (one, two) = (signer.sign(b"{}"), signer.sign(b"{}"));
        assert_ne!(one["webhook-signature"], two["webhook-signature"], "another id");
        let header = |name: &str| one[name].to_str().unwrap();
        let at = header("webhook-timestamp");
        let keys = [signalpost_signing::Secret::parse(text).unwrap()];
        let (id, signatures) = (header("webhook-id"), header("webhook-signature"));
        assert_eq!(verify(&keys, id, at, signatures, b"{}", at.parse().unwrap(), TOLERANCE), Ok(()));
        assert!(!format!("{signer:?}").contains("MfKQ"));
        let hmac = "hmac,header=x-hmac-signature".parse().unwrap();
        let signer = Signer::new(&hmac, &secret).unwrap();
        let signed = signer.sign(b"{}");
        assert!(hmac.hmac(text).unwrap().1.verify(b"{}", signed["x-hmac-signature"].to_str().unwrap()));
        assert!(Signer::new(&Scheme::Standard, &Secret::new("short")).is_err());
    }
}
