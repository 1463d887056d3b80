//! Patterns over event types: exact, `*` for one segment, `**` for any number, a lone `*` for everything.

use serde::{Deserialize, Deserializer, Serialize, de};

/// Why a text is not an event type or a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than 256 characters.
    #[error("longer than 256 characters")]
    TooLong,
    /// Nothing between two dots, before the first or after the last.
    #[error("has an empty segment")]
    EmptySegment,
    /// Something else than `A-Z a-z 0-9 _ : / -`.
    #[error("may contain only letters, digits, `_`, `:`, `/`, `-` and dots between segments")]
    Character,
    /// The prefix that is ours.
    #[error("`signalpost.` is reserved")]
    Reserved,
}

/// Whether `text` may be the type of an event.
///
/// # Errors
/// What is wrong with it.
pub fn check_event_type(text: &str) -> Result<(), PatternError> {
    if text.starts_with("signalpost.") {
        return Err(PatternError::Reserved);
    }
    check(text, false)
}

fn check(text: &str, wildcards: bool) -> Result<(), PatternError> {
    if text.len() > 256 {
        return Err(PatternError::TooLong);
    }
    for segment in text.split('.') {
        if segment.is_empty() {
            return Err(PatternError::EmptySegment);
        }
        let wild = wildcards && (segment == "*" || segment == "**");
        if !wild && !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'/' | b'-')) {
            return Err(PatternError::Character);
        }
    }
    Ok(())
}

/// A pattern over event types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventPattern(String);

impl EventPattern {
    /// Everything.
    pub fn everything() -> Self {
        Self("*".to_owned())
    }

    /// Checks and wraps a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, PatternError> {
        let text = text.into();
        check(&text, true)?;
        Ok(Self(text))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type that it names, where it names exactly one. What a router can look up instead of trying.
    pub fn as_exact(&self) -> Option<&str> {
        (!self.0.split('.').any(|segment| segment.starts_with('*'))).then_some(self.0.as_str())
    }

    /// Whether an event of that type is wanted. Linear in the product of both numbers of segments.
    pub fn matches(&self, event_type: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        // Glob matching with one point of return: behind the last `**` seen, and what it has taken so far.
        let (mut pattern, mut segments) = (self.0.split('.'), event_type.split('.'));
        let mut back = None;
        loop {
            let mut later = segments.clone();
            let Some(segment) = later.next() else { return pattern.all(|rest| rest == "**") };
            let mut behind = pattern.clone();
            match behind.next() {
                Some("**") => {
                    back = Some((behind.clone(), segments.clone()));
                    pattern = behind;
                }
                Some(wanted) if wanted == "*" || wanted == segment => (pattern, segments) = (behind, later),
                _ => {
                    let Some((star, taken)) = &mut back else { return false };
                    taken.next();
                    (pattern, segments) = (star.clone(), taken.clone());
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for EventPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, event_type, expected) in [
            ("order.created", "order.created", true),
            ("order.created", "order.created.v2", false),
            ("order.*", "order.created", true),
            ("order.*", "order", false),
            ("order.*", "order.created.v2", false),
            ("order.**", "order.created.v2", true),
            ("order.**", "order", true),
            ("**.failed", "payment.card.failed", true),
            ("**.failed", "failed", true),
            ("a.**.b.**.c", "a.x.b.b.y.c", true),
            ("a.**.b", "a.x.c", false),
            ("*.created", "order.created", true),
            ("*", "anything.at.all", true),
            ("**", "anything.at.all", true),
        ] {
            assert_eq!(EventPattern::new(pattern).unwrap().matches(event_type), expected, "{pattern} ~ {event_type}");
        }
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        assert_eq!(EventPattern::new("a..b"), Err(PatternError::EmptySegment));
        assert_eq!(EventPattern::new("a.b*"), Err(PatternError::Character));
        assert_eq!(EventPattern::new(""), Err(PatternError::EmptySegment));
        assert_eq!(check_event_type("a.*"), Err(PatternError::Character));
        assert_eq!(check_event_type("signalpost.ping"), Err(PatternError::Reserved));
        assert_eq!(check_event_type("order.created"), Ok(()));
    }
}
