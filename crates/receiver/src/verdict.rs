//! Whether a signature is right.

use http::{HeaderMap, HeaderName};
use serde::Serialize;
use signalpost_signing::{
    HmacHeader, ID_HEADER, SIGNATURE_HEADER, SecretError, TIMESTAMP_HEADER, TOLERANCE, VerifyingKey, verify,
};

/// What is known of a request's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "signature", content = "why")]
pub enum Verdict {
    /// It is right.
    Valid,
    /// It is missing or wrong, for this reason.
    Invalid(String),
    /// No secret is known here.
    Unchecked,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Valid => f.write_str("signature ok"),
            Self::Invalid(why) => write!(f, "SIGNATURE WRONG: {why}"),
            Self::Unchecked => f.write_str("signature not checked"),
        }
    }
}

/// How the requests of one sender are signed: all of it must be right.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    /// Of `webhook-signature`; one of them must fit.
    standard: Vec<VerifyingKey>,
    /// Headers with an HMAC of the body; each must fit.
    hmac: Vec<(HeaderName, HmacHeader)>,
}

impl Verifier {
    /// As Standard Webhooks says: `whsec_…`, or the public key `whpk_…`.
    ///
    /// # Errors
    /// It is neither.
    pub fn standard(key: &str) -> Result<Self, SecretError> {
        Ok(Self { standard: vec![VerifyingKey::parse(key)?], hmac: Vec::new() })
    }

    /// An HMAC of the body in that header.
    pub fn hmac(header: HeaderName, scheme: HmacHeader) -> Self {
        Self { standard: Vec::new(), hmac: vec![(header, scheme)] }
    }

    /// What this asks for, and what the other one does.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.standard.extend(other.standard);
        self.hmac.extend(other.hmac);
        self
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), String> {
        if self.standard.is_empty() && self.hmac.is_empty() {
            return Err("nothing is known to verify with".to_owned());
        }
        if !self.standard.is_empty() {
            let [id, timestamp, signature] =
                [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER].map(|name| text(headers, name));
            verify(&self.standard, id?, timestamp?, signature?, body, now, TOLERANCE)
                .map_err(|error| error.to_string())?;
        }
        for (name, scheme) in &self.hmac {
            if !scheme.verify(body, text(headers, name.as_str())?) {
                return Err(format!("header {name} does not fit"));
            }
        }
        Ok(())
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).ok_or_else(|| format!("header {name} is missing"))?;
    value.to_str().map_err(|_| format!("header {name} is not ASCII"))
}

/// Judges a request: one of the senders must have signed it. `now` is in seconds since the Unix epoch; where no sender is known nothing is judged.
pub fn judge(senders: &[Verifier], headers: &HeaderMap, body: &[u8], now: i64) -> Verdict {
    let mut verdict = Verdict::Unchecked;
    for sender in senders {
        match sender.check(headers, body, now) {
            Ok(()) => return Verdict::Valid,
            Err(why) => verdict = Verdict::Invalid(why),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use signalpost_signing::{Canonical, Encoding, Secret, SigningKey};

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn signed(signature: &str, more: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, "evt_1".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, NOW.into());
        headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
        headers.extend(more.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())));
        headers
    }

    #[test]
    fn every_scheme_of_a_sender_must_be_right() {
        let secret = Secret::from_bytes(&[1; 32]).unwrap();
        let scheme = HmacHeader::new(b"hush", "sha256=", Encoding::Hex, Canonical::Raw);
        let both = Verifier::standard(&secret.reveal())
            .unwrap()
            .and(Verifier::hmac(HeaderName::from_static("x-sig"), scheme.clone()));
        let good = secret.sign("evt_1", NOW, b"{}");
        let judged = |headers: &HeaderMap| judge(std::slice::from_ref(&both), headers, b"{}", NOW);
        assert_eq!(judged(&signed(&good, &[("x-sig", scheme.sign(b"{}"))])), Verdict::Valid);
        for (headers, why) in [
            (signed(&good, &[]), "header x-sig is missing"),
            (signed(&good, &[("x-sig", scheme.sign(b"[]"))]), "header x-sig does not fit"),
            (signed("v1,AAAA", &[("x-sig", scheme.sign(b"{}"))]), "no signature fits"),
        ] {
            assert_eq!(judged(&headers), Verdict::Invalid(why.to_owned()));
        }
    }

    #[test]
    fn one_sender_is_enough_and_none_judges_nothing() {
        let key = SigningKey::from_seed(&[1; 32]);
        let senders = [
            Verifier::standard(&Secret::from_bytes(&[1; 32]).unwrap().reveal()).unwrap(),
            Verifier::standard(&key.public().reveal()).unwrap(),
        ];
        let headers = signed(&key.sign("evt_1", NOW, b"{}"), &[]);
        assert_eq!(judge(&senders, &headers, b"{}", NOW), Verdict::Valid);
        assert!(matches!(judge(&senders[..1], &headers, b"{}", NOW), Verdict::Invalid(_)));
        assert_eq!(judge(&[], &headers, b"{}", NOW), Verdict::Unchecked);
        assert!(Verifier::standard(&key.reveal()).is_err(), "a private key is none to verify with");
    }
}
