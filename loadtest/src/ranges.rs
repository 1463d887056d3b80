//! What numbers an option takes: a scenario would wait for ever, or divide by zero, with others.

use std::str::FromStr;

/// The least and the most that an amount may be.
const LEAST: f64 = 0.001;
const MOST: f64 = 1e9;

/// A count of which there must be one.
///
/// # Errors
/// It is none, in words.
pub fn at_least_one<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(count) if count >= T::from(1) => Ok(count),
        _ => Err("a whole number from 1 on".to_owned()),
    }
}

/// A rate, a length of time, or a share of something.
///
/// # Errors
/// It is none, in words.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(amount) if (LEAST..=MOST).contains(&amount) => Ok(amount),
        _ => Err(format!("a number from {LEAST} to {MOST}")),
    }
}

/// The same, or 0 for none.
///
/// # Errors
/// It is neither, in words.
pub fn none_or_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(0.0),
        _ => positive(text).map_err(|said| format!("0, or {said}")),
    }
}

/// How often something happens: from 0 to 1.
///
/// # Errors
/// It is none, in words.
pub fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(probability) if (0.0..=1.0).contains(&probability) => Ok(probability),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{at_least_one, none_or_positive, positive, probability};

    #[test]
    fn what_would_hang_or_panic_is_refused() {
        assert_eq!([at_least_one::<usize>("1"), at_least_one("64")], [Ok(1), Ok(64)]);
        assert!(["0", "-1", "1.5", ""].iter().all(|text| at_least_one::<u64>(text).is_err()));
        assert_eq!([positive("0.5"), positive("21000")], [Ok(0.5), Ok(21_000.0)]);
        assert!(["0", "-1", "NaN", "inf", "1e-9", "x"].iter().all(|text| positive(text).is_err()));
        assert_eq!([none_or_positive("0"), none_or_positive("5")], [Ok(0.0), Ok(5.0)]);
        assert!(["-1", "-inf"].iter().all(|text| none_or_positive(text).is_err()));
        assert!(probability("0.3").is_ok() && probability("1.1").is_err());
    }
}
