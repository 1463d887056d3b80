//! The operator's keys.

use signalpost_core::Secret;
use signalpost_core::key::KeyHash;
use subtle::ConstantTimeEq as _;

/// The operator's keys, as hashes: comparing hashes in constant time tells nothing of a key, not even its length.
#[derive(Debug)]
pub struct OperatorKeys(Vec<KeyHash>);

impl OperatorKeys {
    /// Keeps the hashes of these keys.
    pub fn new(keys: &[Secret]) -> Self {
        Self(keys.iter().map(|key| KeyHash::of(key.reveal().as_bytes())).collect())
    }

    /// Whether it is one of them. Every one is compared, in constant time.
    pub fn knows(&self, hash: &KeyHash) -> bool {
        self.0.iter().fold(false, |found, known| found | bool::from(known.as_bytes().ct_eq(hash.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_or_not() {
        let keys = OperatorKeys::new(&[Secret::new("first-key-1234567"), Secret::new("second-key-123456")]);
        let knows = |key: &str| keys.knows(&KeyHash::of(key.as_bytes()));
        assert!(knows("first-key-1234567"));
        assert!(knows("second-key-123456"));
        assert!(!knows("first-key-123456"));
        assert!(!knows(""));
        assert!(!OperatorKeys::new(&[]).knows(&KeyHash::of(b"")));
    }
}
