//! API keys of tenants.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Entropy, KeyId, TenantId, Timestamp, secret::Secret};

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Scope {
    /// Posting events.
    #[serde(rename = "events:write")]
    EventsWrite = 1,
    /// All reads of events, deliveries, attempts, dead letters and replays.
    #[serde(rename = "events:read")]
    EventsRead = 2,
    /// Reading destinations.
    #[serde(rename = "destinations:read")]
    DestinationsRead = 4,
    /// Changing destinations; also pause, resume, test and their secrets.
    #[serde(rename = "destinations:write")]
    DestinationsWrite = 8,
    /// Replaying and discarding dead letters; also retry, cancel and replays.
    #[serde(rename = "dead_letters:write")]
    DeadLettersWrite = 16,
    /// Reading the audit log.
    #[serde(rename = "audit:read")]
    AuditRead = 32,
}

impl Scope {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 6] = [
        Self::EventsWrite,
        Self::EventsRead,
        Self::DestinationsRead,
        Self::DestinationsWrite,
        Self::DeadLettersWrite,
        Self::AuditRead,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::DestinationsRead => "destinations:read",
            Self::DestinationsWrite => "destinations:write",
            Self::DeadLettersWrite => "dead_letters:write",
            Self::AuditRead => "audit:read",
        }
    }
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// Everything: the operator's.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// From what a row keeps; bits that mean nothing here are dropped.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits & Self::all().0)
    }

    /// For a row.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether it is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u16 != 0
    }

    /// Those that are among them, in the order of the documents.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u16))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::as_str)).finish()
    }
}

/// SHA-256 of a key's text: all that is kept of it. Its 256 random bits need no salt and no stretching.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of the text that a caller shows.
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// From what a row keeps.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For a row.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// What the text of a tenant's key begins with.
pub const KEY_PREFIX: &str = "sp_";

/// So much of a key's text is kept, for people who look for it: the prefix and eight more.
pub const HINT_CHARS: usize = 11;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The text of a new key: `sp_` and 256 random bits as 52 characters of Crockford base 32.
pub fn new_key(entropy: &dyn Entropy) -> Secret {
    let mut random = zeroize::Zeroizing::new([0_u8; 32]);
    entropy.fill(&mut *random);
    let bit = |index: usize| (index < 256 && random[index / 8] & (0x80 >> (index % 8)) != 0) as usize;
    let digit = |at: usize| (0..5).fold(0, |digit, i| digit * 2 + bit(at * 5 + i));
    let text: String = KEY_PREFIX.chars().chain((0..52).map(|at| char::from(ALPHABET[digit(at)]))).collect();
    Secret::new(text)
}

/// A tenant's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id, which is no secret.
    pub id: KeyId,
    /// In which tenant it acts.
    pub tenant_id: TenantId,
    /// Of its text.
    pub hash: KeyHash,
    /// How its text begins.
    pub hint: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it does nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn a_key_holds_all_its_bits() {
        assert_eq!(new_key(&Fixed(0)).reveal(), format!("sp_{}", "0".repeat(52)));
        // 256 bits are 51 digits and one bit.
        assert_eq!(new_key(&Fixed(0xff)).reveal(), format!("sp_{}g", "z".repeat(51)));
        assert_eq!(&new_key(&Fixed(0b0000_1000)).reveal()[..11], "sp_1040g208");
    }

    #[test]
    fn scopes_are_a_set() {
        let scopes: Scopes = [Scope::EventsWrite, Scope::AuditRead, Scope::EventsWrite].into_iter().collect();
        assert!(scopes.contains(Scope::EventsWrite) && !scopes.contains(Scope::EventsRead));
        assert_eq!(Scopes::from_bits(scopes.bits() | 0x8000), scopes);
        assert_eq!(format!("{scopes:?}"), r#"{"events:write", "audit:read"}"#);
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }
}
