//! Messages off the bus.

use bytes::Bytes;
use signalpost_bus::codec::{decode, delivery_id, encode};

use crate::split;

/// The version up to the first line break, then the value.
///
/// # Panics
/// A message that was read is written in a way that is not read the same.
pub fn bus_message(data: &[u8]) {
    let (version, value) = split(data, b'\n');
    let _none_or_any = delivery_id(Some(version));
    let Ok(message) = decode(Some(version), &Bytes::copy_from_slice(value)) else { return };
    let Ok(encoded) = encode(&message) else { return };
    let (_, version) = &encoded.headers[0];
    let again = decode(Some(version.as_bytes()), &encoded.value.into()).expect("what we write can be read");
    assert_eq!(again, message);
}
