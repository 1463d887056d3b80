//! `--scheme` of `receiver` and `--sign-scheme` of `send`: how requests are signed, in one word of a command line.

use std::str::FromStr;

use axum::http::HeaderName;
use signalpost_signing::{Canonical, Encoding, HmacHeader};

/// `standard`, or `hmac,header=NAME[,prefix=TEXT][,encoding=hex|base64][,canonical=raw|sorted_keys]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks.
    Standard,
    /// HMAC-SHA256 of the body in a header.
    Hmac { header: HeaderName, prefix: String, encoding: Encoding, canonical: Canonical },
}

impl Scheme {
    /// What it is called where both are explained.
    pub const FORM: &'static str =
        "standard, or hmac,header=NAME[,prefix=TEXT][,encoding=hex|base64][,canonical=raw|sorted_keys]";

    /// The header of `hmac`, and what makes and verifies it.
    pub fn hmac(&self, secret: &str) -> Option<(HeaderName, HmacHeader)> {
        let Self::Hmac { header, prefix, encoding, canonical } = self else { return None };
        Some((header.clone(), HmacHeader::new(secret.as_bytes(), prefix.as_str(), *encoding, *canonical)))
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        match parts.next() {
            Some("standard") if text == "standard" => return Ok(Self::Standard),
            Some("hmac") => {}
            _ => return Err(format!("must be {}", Self::FORM)),
        }
        let (mut header, mut prefix, mut encoding, mut canonical) =
            (None, String::new(), Encoding::Hex, Canonical::Raw);
        for part in parts {
            match part.split_once('=') {
                Some(("header", name)) => header = HeaderName::from_bytes(name.as_bytes()).ok(),
                Some(("prefix", value)) => value.clone_into(&mut prefix),
                Some(("encoding", "hex")) => encoding = Encoding::Hex,
                Some(("encoding", "base64")) => encoding = Encoding::Base64,
                Some(("canonical", "raw")) => canonical = Canonical::Raw,
                Some(("canonical", "sorted_keys")) => canonical = Canonical::SortedKeys,
                _ => return Err(format!("`{part}` is not part of {}", Self::FORM)),
            }
        }
        let header = header.ok_or_else(|| "hmac needs header=NAME, the name of a header".to_owned())?;
        Ok(Self::Hmac { header, prefix, encoding, canonical })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_from_one_word() {
        assert_eq!("standard".parse(), Ok(Scheme::Standard));
        let (encoding, canonical) = (Encoding::Base64, Canonical::SortedKeys);
        let header = HeaderName::from_static("x-hub-signature-256");
        assert_eq!(
            "hmac,header=X-Hub-Signature-256,prefix=sha256=,encoding=base64,canonical=sorted_keys".parse(),
            Ok(Scheme::Hmac { header: header.clone(), prefix: "sha256=".into(), encoding, canonical })
        );
        let plain: Scheme = "hmac,header=x-hub-signature-256".parse().unwrap();
        let (name, scheme) = plain.hmac("key").unwrap();
        assert_eq!((name, scheme.sign(b"body").len()), (header, 64));
        for bad in ["", "hmac", "standard,header=x", "hmac,header=a b", "hmac,header=x,encoding=HEX", "hmac,key=x"] {
            assert!(bad.parse::<Scheme>().is_err(), "{bad}");
        }
    }
}
