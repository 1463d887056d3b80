//! Takes out of what a receiver answers what we told it in secret: some echo the headers of a request in their bodies.
//!
//! Found is a value as it was sent, and as JSON writes it. A receiver that encodes it in another way hands its own secret out, which nobody can stop.

use std::borrow::Cow;

use zeroize::Zeroizing;

/// Shorter values hide nothing, and stand everywhere.
const LEAST: usize = 4;
/// What stands there instead.
const MASK: &[u8] = b"***";

/// The values that must not be shown.
pub(crate) struct Scrubber(Vec<Zeroizing<Vec<u8>>>);

impl Scrubber {
    /// Of these values. Of `Bearer …` and the like also what follows the first word.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut needles: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for value in values {
            let credentials = value.split_once(' ').map(|(_, rest)| rest.trim()).filter(|rest| rest.len() >= 2 * LEAST);
            for text in [Some(value.trim()), credentials].into_iter().flatten() {
                let json = serde_json::to_string(text).unwrap_or_default();
                let json = json.trim_matches('"');
                for form in [Cow::Borrowed(text), Cow::Borrowed(json), Cow::Owned(json.replace('/', "\\/"))] {
                    let form = Zeroizing::new(form.as_bytes().to_vec());
                    if form.len() >= LEAST && !needles.contains(&form) {
                        needles.push(form);
                    }
                }
            }
        }
        // A value that holds another goes first.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self(needles)
    }

    /// How many more bytes than are kept must be read, so that a value at the border is seen as a whole.
    pub(crate) fn longest(&self) -> usize {
        self.0.first().map_or(0, |needle| needle.len())
    }

    /// The text without them, also without the beginning of one at its end.
    pub(crate) fn scrub(&self, text: &mut Vec<u8>) {
        for needle in &self.0 {
            let mut at = 0;
            while let Some(found) = find(text.get(at..).unwrap_or_default(), needle) {
                let start = at + found;
                text.splice(start..start + needle.len(), MASK.iter().copied());
                at = start + MASK.len();
            }
        }
        for needle in &self.0 {
            let cut = (LEAST..needle.len()).rev().find(|length| text.ends_with(&needle[..*length]));
            if let Some(length) = cut {
                text.truncate(text.len() - length);
                text.extend_from_slice(MASK);
            }
        }
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(values: &[&str], text: &str) -> String {
        let mut text = text.as_bytes().to_vec();
        Scrubber::new(values.iter().copied()).scrub(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn values_are_masked_wherever_they_stand() {
        for (values, text, expected) in [
            (&["s3cret-value"][..], "x-key: s3cret-value, again s3cret-value", "x-key: ***, again ***"),
            (
                &["Bearer abcdefgh"],
                r#"{"authorization":"Bearer abcdefgh","token":"abcdefgh"}"#,
                r#"{"authorization":"***","token":"***"}"#,
            ),
            (&[r#"a"b/c\d"#], r#"["a\"b/c\\d","a\"b\/c\\d"] a"b/c\d"#, r#"["***","***"] ***"#),
            (&["abcd", "abcdefgh"], "abcdefgh abcd", "*** ***"),
            (&["s3cret-value"], "it begins: s3cret-v", "it begins: ***"),
            (&["abc", ""], "abc and nothing", "abc and nothing"),
            (&[], "as it is", "as it is"),
        ] {
            assert_eq!(scrubbed(values, text), expected, "{values:?}");
        }
    }
}
