//! A point in time, in UTC, to the microsecond.

use std::{fmt, ops, time::Duration};

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time of RFC 3339 within the years 0 to 9999 of UTC")]
pub struct NotATime;

/// Microseconds since the Unix epoch. Shown as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier` this is; zero where it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// The text is not RFC 3339; or its year is, in UTC, one that RFC 3339 cannot write: an offset or a leap second leads
    /// there from the first and the last day.
    pub fn parse(text: &str) -> Result<Self, NotATime> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| NotATime)?;
        let time = Self(time.timestamp_micros());
        time.utc().filter(|time| (0..=9999).contains(&time.year())).map(|_| time).ok_or(NotATime)
    }

    fn utc(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }
}

impl ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().unwrap_or_default().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        // Of years with a sign, which were once written: what is kept can always be read.
        let signed = |_| text.parse::<DateTime<Utc>>().map(|time| Self(time.timestamp_micros()));
        Self::parse(&text).or_else(signed).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_can_be_written_and_parsed_again() {
        for text in ["0000-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"] {
            assert_eq!(Timestamp::parse(text).map(|time| time.to_string()).as_deref(), Ok(text));
        }
        for beyond in ["0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z"] {
            assert_eq!(Timestamp::parse(beyond), Err(NotATime), "{beyond}");
        }
        assert_eq!(Timestamp::parse("yesterday"), Err(NotATime));
    }

    #[test]
    fn years_with_a_sign_that_are_kept_are_read() {
        for kept in [r#""+10000-01-01T00:59:59Z""#, r#""-0001-12-31T23:00:00Z""#] {
            let time: Timestamp = serde_json::from_str(kept).unwrap();
            assert_eq!(serde_json::to_string(&time).unwrap(), kept);
        }
    }
}
