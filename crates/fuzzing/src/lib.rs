//! What the fuzz targets run: everything that reads what strangers wrote. Each target takes any bytes, must not panic,
//! and asserts what holds of whatever is taken. `fuzz/` drives them with libFuzzer (`fuzz/README.md`); the test of this
//! crate replays the corpus in `fuzz/corpus`, with the stable toolchain.

#![allow(clippy::expect_used, reason = "a broken promise ends the run: that is the finding")]

mod bus;
mod sealed;
mod signatures;
mod urls;

pub use bus::bus_message;
pub use sealed::sealed;
pub use signalpost_api::fuzzing::{cloud_event, cursor, destination, event};
pub use signatures::{canonical, signature};
pub use urls::url;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("bus_message", bus_message),
    ("canonical", canonical),
    ("cloud_event", cloud_event),
    ("cursor", cursor),
    ("destination", destination),
    ("event", event),
    ("sealed", sealed),
    ("signature", signature),
    ("url", url),
];

/// The input up to the first of these bytes, and what follows it.
fn split(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == at) {
        Some(place) => (&data[..place], &data[place + 1..]),
        None => (data, &[]),
    }
}
