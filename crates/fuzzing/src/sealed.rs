//! Sealed values, and the list of keys.

use bytes::Bytes;
use signalpost_core::{Entropy, Sealed, TenantId};
use signalpost_vault::{KeyRing, Place};

/// Always the same: a run can be repeated.
#[derive(Debug)]
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A list of keys, a sealed value, or a text to be sealed.
///
/// # Panics
/// A value that nobody sealed opens, one that was sealed does not, or one opens that was changed.
pub fn sealed(data: &[u8]) {
    if let Ok(Ok(ring)) = std::str::from_utf8(data).map(KeyRing::parse) {
        assert!(ring.knows(ring.newest()));
    }
    let key = KeyRing::generate("k1", &Fixed);
    let ring = KeyRing::parse(key.reveal()).expect("a key that was made");
    let place = Place::Ingest(TenantId::DEFAULT);
    let given = Sealed::new(Bytes::copy_from_slice(data));
    let _any = given.key_id();
    assert!(ring.open(place, &given).is_err(), "a value that nobody sealed");

    let sealed = ring.seal(&Fixed, place, data);
    assert_eq!(ring.open(place, &sealed).expect("what was sealed").as_slice(), data);
    let mut changed = sealed.as_bytes().to_vec();
    let at = data.first().map_or(0, |byte| usize::from(*byte) % changed.len());
    changed[at] ^= 1 << (data.len() % 8);
    assert!(ring.open(place, &Sealed::new(changed.into())).is_err(), "changed at {at}");
}
