//! How many attempts of the last 30 s succeeded and failed, second by second.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// How far back the window reaches, in seconds.
pub(super) const SECONDS: i64 = 30;

/// What came of attempts in one second: the second, successes, failures.
type Second = (i64, u32, u32);

/// At most 30 seconds, those in which something happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window(VecDeque<Second>);

impl Window {
    /// Adds what was seen until now. A clock that was set back adds to the latest second.
    pub(super) fn add(&mut self, now: Timestamp, successes: u32, failures: u32) {
        self.forget(now);
        if successes == 0 && failures == 0 {
            return;
        }
        match self.0.back_mut() {
            Some((second, good, bad)) if *second >= now.as_secs() => {
                *good = good.saturating_add(successes);
                *bad = bad.saturating_add(failures);
            }
            _ => self.0.push_back((now.as_secs(), successes, failures)),
        }
    }

    /// Attempts in all, and how many of them failed.
    pub(super) fn sums(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(all, failed), (_, good, bad)| {
            (all + u64::from(*good) + u64::from(*bad), failed + u64::from(*bad))
        })
    }

    /// Leaves out what is older than the window, and seconds that a clock set back made lie in the far future.
    fn forget(&mut self, now: Timestamp) {
        let present = now.as_secs();
        self.0.retain(|(second, _, _)| (present - SECONDS + 1..=present + SECONDS).contains(second));
    }
}
