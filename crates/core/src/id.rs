//! Typed ids: a UUIDv7 inside, a TypeID outside (`evt_01h455vb4pex5vsknk084sn02q`).
//!
//! The text form follows TypeID 0.3: prefix, underscore, 26 characters of Crockford base 32 in
//! lower case. In a store an id is its 16 bytes, which sort by time of creation to the millisecond.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{Entropy, Timestamp};

/// What an id names; gives its prefix.
pub trait Kind: Copy + Eq + Ord + std::hash::Hash + Send + Sync + 'static {
    /// The part before the underscore.
    const PREFIX: &'static str;
}

/// An id of one kind of thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id<K: Kind> {
    uuid: Uuid,
    kind: PhantomData<K>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $alias:ident $prefix:literal;)*) => {$(
        /// Marker of the kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind;
        impl Kind for $kind { const PREFIX: &'static str = $prefix; }
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// An event that a producer posted.
    EventKind EventId "evt";
    /// A URL that wants events.
    DestinationKind DestinationId "dst";
    /// One event bound for one destination.
    DeliveryKind DeliveryId "dlv";
    /// An isolated customer or environment.
    TenantKind TenantId "tnt";
    /// An API key of a tenant.
    KeyKind KeyId "key";
    /// A job that sends past deliveries again.
    ReplayKind ReplayId "rpl";
    /// An entry of the audit log.
    AuditKind AuditId "aud";
    /// A record of what has been committed and not yet been acknowledged by the bus. Never shown.
    OutboxKind OutboxId "obx";
}

impl TenantId {
    /// The tenant that exists from the first migration on.
    pub const DEFAULT: Self =
        Self { uuid: Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001), kind: PhantomData };
}

impl<K: Kind> Id<K> {
    /// A new UUIDv7 of that millisecond.
    pub fn new(at: Timestamp, entropy: &dyn Entropy) -> Self {
        let mut random = [0; 10];
        entropy.fill(&mut random);
        Self::from_parts(at, random)
    }

    /// A UUIDv7 from its millisecond and its random part.
    pub fn from_parts(at: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        Self::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The lowest id of that millisecond: the start of a range by time.
    pub fn floor(at: Timestamp) -> Self {
        let millis = u128::try_from(at.as_millis().max(0)).unwrap_or(0);
        Self::from_uuid(Uuid::from_u128(millis << 80))
    }

    /// Wraps a UUID that a store kept.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// The UUID, as a store keeps it.
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }

    /// The millisecond in the id.
    pub fn created_at(self) -> Timestamp {
        let millis = self.uuid.as_u128() >> 80;
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(0))
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Another prefix, or none.
    #[error("not an id of this kind")]
    Prefix,
    /// Not 26 characters of base 32.
    #[error("not a well-formed id")]
    Suffix,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.uuid.as_u128();
        let mut text = [0_u8; 26];
        for (place, character) in text.iter_mut().enumerate() {
            let shift = 5 * (25 - place);
            let index = usize::try_from((bits >> shift) & 31).unwrap_or(0);
            *character = ALPHABET[index];
        }
        f.write_str(K::PREFIX)?;
        f.write_str("_")?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: Kind> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let suffix = text
            .strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .ok_or(ParseIdError::Prefix)?
            .as_bytes();
        // The first character carries three bits only.
        if suffix.len() != 26 || suffix[0] > b'7' {
            return Err(ParseIdError::Suffix);
        }
        let mut bits = 0_u128;
        for character in suffix {
            let value = ALPHABET.iter().position(|c| c == character).ok_or(ParseIdError::Suffix)?;
            bits = (bits << 5) | value as u128;
        }
        Ok(Self::from_uuid(Uuid::from_u128(bits)))
    }
}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_the_typeid_of_the_specification() {
        // A valid vector of the TypeID specification (valid.json, "uuidv7").
        let uuid = Uuid::from_u128(0x0188_9c89_df6b_7f1c_a388_9139_6ec3_14bc);
        let id = EventId::from_uuid(uuid);
        assert_eq!(id.to_string(), "evt_01h2e8kqvbfwea724h75qc655w");
        assert_eq!("evt_01h2e8kqvbfwea724h75qc655w".parse(), Ok(id));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "evt_",
            "dst_01h2e8kqvbfwea724h75qc655w",
            "evt_81h2e8kqvbfwea724h75qc655w",
            "evt_01H2E8KQVBFWEA724H75QC655W",
            "evt_01h2e8kqvbfwea724h75qc655",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_keeps_its_millisecond_and_sorts_by_it() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        let id = DeliveryId::from_parts(at, [0xff; 10]);
        assert_eq!(id.created_at(), at);
        assert!(DeliveryId::floor(at) < id);
        assert!(id < DeliveryId::floor(Timestamp::from_millis(1_700_000_000_124)));
    }
}
