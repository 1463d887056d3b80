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
