//! The rules of an event's fields, whichever form it comes in. Each gives what is wrong as the end of a sentence.

use signalpost_core::{
    Timestamp,
    id::{DeliveryKind, DestinationKind, EventKind, KeyKind, Kind as _, OutboxKind, ReplayKind, TenantKind},
    pattern,
};

use crate::manage::fields::check_text;

/// The most characters of a source, an ordering key and a content type.
const MOST_CHARACTERS: usize = 256;

/// The most bytes of labels, or of a CloudEvent's extensions, in all. They travel in every message of the bus, which takes
/// no message without a bound.
pub const MOST_FREE_BYTES: usize = 64 * 1024;

/// What is wrong, for a sentence that begins with the field.
pub type Wrong = String;

/// A type: dot-separated segments.
pub fn event_type(text: &str) -> Result<(), Wrong> {
    pattern::check_event_type(text).map_err(|error| match error {
        pattern::PatternError::Reserved => "begins with `signalpost.`, which is reserved".to_owned(),
        pattern::PatternError::TooLong => "is longer than 256 characters".to_owned(),
        other => other.to_string(),
    })
}

/// A caller's own id, of an event or a destination: 1 to 256 visible characters, not shaped like an id of ours.
pub fn uid(text: &str) -> Result<(), Wrong> {
    check_text(text, 1..=MOST_CHARACTERS)?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("may have visible characters only".to_owned());
    }
    if is_shaped_like_ours(text) {
        return Err("must not be shaped like an id of Signalpost".to_owned());
    }
    Ok(())
}

/// Whether a text could be taken for one of our ids: a prefix of ours and 26 letters and digits.
fn is_shaped_like_ours(text: &str) -> bool {
    let prefixes = [
        EventKind::PREFIX,
        DestinationKind::PREFIX,
        DeliveryKind::PREFIX,
        TenantKind::PREFIX,
        KeyKind::PREFIX,
        ReplayKind::PREFIX,
        OutboxKind::PREFIX,
    ];
    text.split_once('_').is_some_and(|(prefix, rest)| {
        prefixes.contains(&prefix) && rest.len() == 26 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Where an event came from.
pub fn source(text: &str) -> Result<(), Wrong> {
    check_text(text, 1..=MOST_CHARACTERS)?;
    no_control(text)
}

/// What must not overtake each other shares it.
pub fn ordering_key(text: &str) -> Result<(), Wrong> {
    check_text(text, 1..=MOST_CHARACTERS)
}

/// A version of a schema.
pub fn schema_version(text: &str) -> Result<(), Wrong> {
    check_text(text, 1..=64)?;
    no_control(text)
}

/// The media type of `data`: a header's value.
pub fn content_type(text: &str) -> Result<(), Wrong> {
    check_text(text, 1..=MOST_CHARACTERS)?;
    let (kind, subtype) = text.split(';').next().and_then(|media_type| media_type.split_once('/')).unwrap_or_default();
    let token = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if token(kind) && token(subtype.trim_end()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        Ok(())
    } else {
        Err("must be a media type, such as `text/csv`".to_owned())
    }
}

/// A time.
pub fn time(text: &str) -> Result<Timestamp, Wrong> {
    Timestamp::parse(text).map_err(|_| "must be an RFC 3339 time".to_owned())
}

/// A text that stores and headers can hold.
pub fn no_nul(text: &str) -> Result<(), Wrong> {
    check_text(text, 0..=usize::MAX)
}

fn no_control(text: &str) -> Result<(), Wrong> {
    if text.chars().any(char::is_control) { Err("must not contain control characters".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_visible_and_not_ours() {
        for good in ["a", "order-17", "Ä", "evt_1", "dst_01h2e8kqvbfwea724h75qc655", &"x".repeat(256)] {
            assert_eq!(uid(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "a\n", "a\u{7f}", "a\u{0}", "evt_01h2e8kqvbfwea724h75qc655w", &"x".repeat(257)] {
            assert!(uid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_content_type_is_a_media_type() {
        for good in ["text/csv", "application/json", "text/plain; charset=utf-8", "application/vnd.x+xml"] {
            assert_eq!(content_type(good), Ok(()), "{good}");
        }
        for bad in ["", "text", "/", "text/", "text/csv\r\nx: y", "a/b/c", "tex t/csv"] {
            assert!(content_type(bad).is_err(), "{bad}");
        }
    }
}
