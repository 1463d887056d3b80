//! What must not be read by others: texts that no `Debug` shows, and how rows keep them.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Timestamp;

/// A secret text. Never shown by `Debug`; overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the one who signs or sends it, or the owner who asked for it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Bytes that the vault encrypted; opaque to all others.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    /// Wraps what a row keeps, or the vault made.
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id of the key that they are encrypted with, and what follows it. They begin with `0x01` and the id's length.
    pub fn split(&self) -> Option<(&str, &[u8])> {
        let [1, length, rest @ ..] = self.as_bytes() else { return None };
        let (id, rest) = rest.split_at_checked(usize::from(*length))?;
        Some((str::from_utf8(id).ok()?, rest))
    }

    /// The id of the key that they are encrypted with.
    pub fn key_id(&self) -> Option<&str> {
        self.split().map(|(id, _)| id)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// The secrets of a destination as its row keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// [`DestinationSecrets`], encrypted.
    Sealed(Sealed),
    /// Of a row from before they were encrypted, or written while processes run that cannot read encrypted ones.
    Plain {
        /// Signs what is sent.
        secret: Secret,
        /// The values of further headers, by name.
        headers: BTreeMap<String, Secret>,
    },
}

impl Kept {
    /// A signing secret alone, not encrypted.
    pub fn plain(secret: impl Into<String>) -> Self {
        Self::Plain { secret: Secret::new(secret), headers: BTreeMap::new() }
    }
}

/// What is secret of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationSecrets {
    /// Signs what is sent: `whsec_…`, `whsk_…`, or for `hmac` any text.
    pub current: Secret,
    /// Earlier ones that sign beside it until they end; newest first, at most [`MAX_PREVIOUS`].
    pub previous: Vec<PreviousSecret>,
    /// The values of further headers, by name; they may hold placeholders.
    pub headers: BTreeMap<String, Secret>,
    /// How its requests say who sends them.
    pub auth: Option<Auth>,
}

/// The most secrets that sign beside the newest.
pub const MAX_PREVIOUS: usize = 10;

/// A secret that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    /// It.
    pub secret: Secret,
    /// From then on it does not sign.
    pub expires_at: Timestamp,
}

/// Credentials that go with each request to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Basic`.
    Basic {
        /// Without a colon.
        username: String,
        #[allow(missing_docs)]
        password: Secret,
    },
    /// `Authorization: Bearer`.
    Bearer {
        #[allow(missing_docs)]
        token: Secret,
    },
    /// A header of the receiver's choice.
    ApiKey {
        /// Its name.
        header: String,
        #[allow(missing_docs)]
        value: Secret,
    },
}

impl DestinationSecrets {
    /// One secret and nothing else.
    pub const fn signing(current: Secret) -> Self {
        Self { current, previous: Vec::new(), headers: BTreeMap::new(), auth: None }
    }

    /// The secrets that sign at that moment, newest first.
    pub fn active(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        let previous = self.previous.iter().filter(move |previous| previous.expires_at > now);
        std::iter::once(&self.current).chain(previous.map(|previous| &previous.secret))
    }

    /// As JSON, for the vault. The only serialisation of secrets there is.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let text = |secret: &Secret| secret.reveal().to_owned();
        let document = Document {
            current: text(&self.current),
            previous: self.previous.iter().map(|p| (text(&p.secret), p.expires_at.as_micros())).collect(),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            auth: self.auth.as_ref().map(|auth| match auth {
                Auth::Basic { username, password } => AuthDocument::Basic(username.clone(), text(password)),
                Auth::Bearer { token } => AuthDocument::Bearer(text(token)),
                Auth::ApiKey { header, value } => AuthDocument::ApiKey(header.clone(), text(value)),
            }),
        };
        // Strings and numbers alone: nothing that could fail.
        let json = Zeroizing::new(serde_json::to_vec(&document).unwrap_or_default());
        document.wipe();
        json
    }

    /// From what [`Self::to_json`] made.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(json).ok()?;
        Some(Self {
            current: Secret::new(document.current),
            previous: document
                .previous
                .into_iter()
                .map(|(secret, at)| PreviousSecret {
                    secret: Secret::new(secret),
                    expires_at: Timestamp::from_micros(at),
                })
                .collect(),
            headers: document.headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            auth: document.auth.map(|auth| match auth {
                AuthDocument::Basic(username, password) => Auth::Basic { username, password: Secret::new(password) },
                AuthDocument::Bearer(token) => Auth::Bearer { token: Secret::new(token) },
                AuthDocument::ApiKey(header, value) => Auth::ApiKey { header, value: Secret::new(value) },
            }),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    current: String,
    #[serde(default)]
    previous: Vec<(String, i64)>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    auth: Option<AuthDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthDocument {
    Basic(String, String),
    Bearer(String),
    ApiKey(String, String),
}

impl Document {
    /// Overwrites the copies that were made for serde.
    fn wipe(self) {
        let secrets = [self.current].into_iter().chain(self.previous.into_iter().map(|(secret, _)| secret));
        let auth = self.auth.map(|auth| match auth {
            AuthDocument::Basic(_, secret) | AuthDocument::Bearer(secret) | AuthDocument::ApiKey(_, secret) => secret,
        });
        secrets.chain(self.headers.into_values()).chain(auth).for_each(|secret| drop(Zeroizing::new(secret)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_shown_to_nobody() {
        let secrets = DestinationSecrets {
            current: Secret::new("whsec_new"),
            previous: vec![PreviousSecret { secret: Secret::new("whsec_old"), expires_at: Timestamp::from_micros(5) }],
            headers: [("X-Key".to_owned(), Secret::new("header-value"))].into(),
            auth: Some(Auth::Basic { username: "anna".into(), password: Secret::new("pass-word") }),
        };
        assert_eq!(DestinationSecrets::from_json(&secrets.to_json()).as_ref(), Some(&secrets));
        let shown = format!("{secrets:?}");
        for secret in ["whsec_", "header-value", "pass-word"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(DestinationSecrets::from_json(b"{}"), None);
    }

    #[test]
    fn a_secret_signs_until_it_ends() {
        let previous =
            |text: &str, at| PreviousSecret { secret: Secret::new(text), expires_at: Timestamp::from_micros(at) };
        let mut secrets = DestinationSecrets::signing(Secret::new("c"));
        secrets.previous = vec![previous("b", 20), previous("a", 10)];
        let active =
            |at| secrets.active(Timestamp::from_micros(at)).map(|s| s.reveal().to_owned()).collect::<Vec<_>>().concat();
        assert_eq!((active(9), active(10), active(20)), ("cba".into(), "cb".into(), "c".into()));
    }
}
