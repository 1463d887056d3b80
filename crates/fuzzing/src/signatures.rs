//! Signatures as they come in: parsed, verified, and what of a body is signed.

use std::str::from_utf8;

use serde_json::value::RawValue;
use signalpost_signing::{
    Canonical, Encoding, HmacHeader, Secret, SigningKey, TOLERANCE, VerifyingKey, sorted_keys, verify,
};

use crate::split;

const NOW: i64 = 1_700_000_000;

/// Key, id, timestamp and signatures, a line each; then the body.
///
/// # Panics
/// A signature is taken that was not made with the key, or one is not that was.
pub fn signature(data: &[u8]) {
    let (key, rest) = split(data, b'\n');
    let (id, rest) = split(rest, b'\n');
    let (timestamp, rest) = split(rest, b'\n');
    let (given, body) = split(rest, b'\n');
    let (Ok(key), Ok(id), Ok(timestamp), Ok(given)) =
        (from_utf8(key), from_utf8(id), from_utf8(timestamp), from_utf8(given))
    else {
        return;
    };
    if let Ok(key) = VerifyingKey::parse(key) {
        let _any = verify(&[key], id, timestamp, given, body, NOW, TOLERANCE);
    }
    if let Ok(key) = SigningKey::parse(key) {
        let _any = key.reveal();
    }
    let secret = Secret::from_bytes(&[7; 32]).expect("a secret");
    let accepted = verify(std::slice::from_ref(&secret), id, timestamp, given, body, NOW, TOLERANCE).is_ok();
    if accepted {
        // It says so in one of its words: nobody else can have made it.
        let at = timestamp.parse().expect("it was accepted");
        let right = secret.sign(id, at, body);
        assert!(given.split(' ').any(|word| word == right), "{given} is not {right}");
    }
    let own = format!("{given} {}", secret.sign(id, NOW, body));
    assert_eq!(verify(&[secret], id, &NOW.to_string(), &own, body, NOW, TOLERANCE), Ok(()));
    for encoding in [Encoding::Hex, Encoding::Base64] {
        for canonical in [Canonical::Raw, Canonical::SortedKeys] {
            let header = HmacHeader::new(key.as_bytes(), id, encoding, canonical);
            assert!(header.verify(body, &header.sign(body)));
            let _any = header.verify(body, given);
        }
    }
}

/// A body that Python would write anew.
///
/// # Panics
/// What is written is no ASCII, no JSON, or is written in another way the second time; or JSON is not taken.
pub fn canonical(data: &[u8]) {
    let is_json = serde_json::from_slice::<&RawValue>(data).is_ok();
    let Some(text) = sorted_keys::sorted_keys(data) else {
        // Deeper than serde_json looks into a raw value there may be more levels than are taken.
        let levels = data.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
        assert!(!is_json || levels > sorted_keys::MAX_DEPTH, "JSON that is not taken");
        return;
    };
    assert!(is_json, "taken, but no JSON");
    assert!(text.is_ascii());
    if text.contains("Infinity") {
        // Python's word for a number beyond doubles is no JSON; or it stands in a string.
        return;
    }
    assert_eq!(sorted_keys::sorted_keys(text.as_bytes()).as_deref(), Some(text.as_str()), "not the same again");
}
