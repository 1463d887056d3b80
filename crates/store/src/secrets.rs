//! How what a destination's owner set, and its secrets, stand in its row: the same in every store.

use std::collections::BTreeMap;

use serde::Deserialize;
use signalpost_core::{DestinationSpec, Kept, Sealed, Secret};

/// The columns of a row.
#[derive(Debug)]
pub struct SecretColumns<'a> {
    /// `spec`, as JSON; with the values of headers where they are not encrypted.
    pub spec: String,
    /// `secret`; empty where it is encrypted.
    pub secret: &'a str,
    /// `sealed`.
    pub sealed: Option<&'a [u8]>,
    /// `sealed_by`.
    pub sealed_by: Option<&'a str>,
}

/// What is written.
///
/// # Errors
/// It is no JSON.
pub fn columns<'a>(spec: &DestinationSpec, kept: &'a Kept) -> Result<SecretColumns<'a>, serde_json::Error> {
    match kept {
        Kept::Sealed(sealed) => Ok(SecretColumns {
            spec: serde_json::to_string(spec)?,
            secret: "",
            sealed: Some(sealed.as_bytes()),
            sealed_by: sealed.key_id(),
        }),
        Kept::Plain { secret, headers } => {
            let mut document = serde_json::to_value(spec)?;
            let headers: BTreeMap<&str, &str> =
                headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
            document["headers"] = serde_json::to_value(headers)?;
            Ok(SecretColumns { spec: document.to_string(), secret: secret.reveal(), sealed: None, sealed_by: None })
        }
    }
}

/// What was read.
///
/// # Errors
/// `spec` is not what [`columns`] made.
pub fn read(spec: &str, secret: String, sealed: Option<Vec<u8>>) -> Result<(DestinationSpec, Kept), serde_json::Error> {
    #[derive(Deserialize)]
    struct Headers {
        #[serde(default)]
        headers: BTreeMap<String, String>,
    }
    let mut read: DestinationSpec = serde_json::from_str(spec)?;
    let kept = if let Some(sealed) = sealed {
        Kept::Sealed(Sealed::new(sealed.into()))
    } else {
        let Headers { headers } = serde_json::from_str(spec)?;
        read.header_names = headers.keys().cloned().collect();
        let headers = headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Kept::Plain { secret: Secret::new(secret), headers }
    };
    Ok((read, kept))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As the version before writes it.
    const BEFORE: &str = r#"{"name": "", "url": "https://example.com/hook", "event_types": ["*"],
        "method": "POST", "headers": {"X-Key": "value", "X-Other": "ü"}, "timeout_ms": 15000}"#;

    #[test]
    fn a_row_of_the_version_before_is_read() {
        let (spec, kept) = read(BEFORE, "whsec_x".to_owned(), None).unwrap();
        assert_eq!(spec.header_names.iter().collect::<Vec<_>>(), ["X-Key", "X-Other"]);
        assert_eq!(spec.signatures, signalpost_core::signature::default_signatures());
        let headers = [("X-Key", "value"), ("X-Other", "ü")];
        let headers = headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
        assert_eq!(kept, Kept::Plain { secret: Secret::new("whsec_x"), headers });
        // One without headers, too.
        let bare = r#"{"url": "https://example.com/hook", "event_types": ["*"]}"#;
        assert_eq!(read(bare, "whsec_x".to_owned(), None).unwrap().1, Kept::plain("whsec_x"));
    }

    #[test]
    fn what_is_not_encrypted_is_written_as_the_version_before_reads_it() {
        let (spec, kept) = read(BEFORE, "whsec_x".to_owned(), None).unwrap();
        let written = columns(&spec, &kept).unwrap();
        assert_eq!((written.secret, written.sealed, written.sealed_by), ("whsec_x", None, None));
        let document: Value = serde_json::from_str(&written.spec).unwrap();
        assert_eq!(document["headers"], json!({"X-Key": "value", "X-Other": "ü"}));
        assert_eq!(read(&written.spec, written.secret.to_owned(), None).unwrap(), (spec.clone(), kept));
        // It knows that one, and asks for it.
        let kept = Kept::plain("whsec_x");
        let none = columns(&spec, &kept).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&none.spec).unwrap()["headers"], json!({}));
    }

    #[test]
    fn what_is_encrypted_leaves_nothing_else() {
        let (spec, _) = read(BEFORE, String::new(), None).unwrap();
        let kept = Kept::Sealed(Sealed::new(b"\x01\x02k1secrets".to_vec().into()));
        let written = columns(&spec, &kept).unwrap();
        assert_eq!((written.secret, written.sealed_by), ("", Some("k1")));
        assert!(!written.spec.contains("value"), "{}", written.spec);
        let sealed = written.sealed.map(<[u8]>::to_vec);
        assert_eq!(read(&written.spec, String::new(), sealed).unwrap(), (spec, kept));
    }
}
