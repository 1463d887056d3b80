//! Counts answers, tells of lines that were not accepted, and sums up.

use std::{fmt, time::Duration};

use indicatif::ProgressBar;
use tokio::time::Instant;

use super::client::{Answer, Outcome};

/// The counts so far.
pub struct Tally {
    progress: ProgressBar,
    began: Instant,
    accepted: u64,
    duplicates: u64,
    refused: u64,
    broken: u64,
    unknown: u64,
    fatal: Option<String>,
}

impl Tally {
    pub fn new(progress: ProgressBar) -> Self {
        let began = Instant::now();
        Self { progress, began, accepted: 0, duplicates: 0, refused: 0, broken: 0, unknown: 0, fatal: None }
    }

    /// Counts an answer, and tells of its lines that were not accepted.
    pub fn add(&mut self, answer: Answer) {
        let mut failures = Failures::default();
        for (line, outcome) in answer.outcomes {
            let why = match outcome {
                Outcome::Accepted => {
                    self.accepted += 1;
                    continue;
                }
                Outcome::Duplicate => {
                    self.duplicates += 1;
                    continue;
                }
                Outcome::Broken(why) => {
                    self.broken += 1;
                    why
                }
                Outcome::Refused(why) => {
                    self.refused += 1;
                    why
                }
                Outcome::Unknown(why) => {
                    self.unknown += 1;
                    format!("given up: {why}")
                }
            };
            failures.add(line, why);
        }
        self.progress.suspend(|| eprint!("{failures}"));
        self.fatal = self.fatal.take().or(answer.fatal);
        // Answers come out of order; the bar never goes back.
        self.progress.set_position(self.progress.position().max(answer.position));
        let (done, rate) = (self.accepted + self.duplicates, self.rate());
        self.progress.set_message(format!("{done} events, {rate:.0}/s, {} failed", self.failed()));
    }

    fn failed(&self) -> u64 {
        self.refused + self.broken + self.unknown
    }

    /// Why nothing more can be accepted.
    pub fn refused_for_good(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// A request was repeated for as long as it may be: nobody is there.
    pub fn has_given_up(&self) -> bool {
        self.unknown > 0
    }

    /// Whether every line was accepted.
    pub fn is_clean(&self) -> bool {
        self.failed() == 0 && self.fatal.is_none()
    }

    fn rate(&self) -> f64 {
        let seconds = self.began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let done = (self.accepted + self.duplicates) as f64;
        done / seconds
    }

    /// One line for people and scripts.
    pub fn summary(&self) -> String {
        let sent = self.accepted + self.duplicates + self.refused + self.unknown;
        let broken = match self.broken {
            0 => String::new(),
            1 => " (1 line is broken)".to_owned(),
            broken => format!(" ({broken} lines are broken)"),
        };
        format!(
            "sent {sent}, accepted {}, duplicates {}, failed {}{broken}, in {:.2} s: {:.0} events/s",
            self.accepted,
            self.duplicates,
            self.failed(),
            self.began.elapsed().as_secs_f64(),
            self.rate()
        )
    }
}

/// First line, last line, and why they were not accepted. Lines in their order.
#[derive(Default)]
struct Failures(Vec<(u64, u64, String)>);

impl Failures {
    /// One more. Neighbours with the same reason are told in one line.
    fn add(&mut self, line: u64, why: String) {
        match self.0.last_mut() {
            Some((_, last, same)) if *last + 1 == line && *same == why => *last = line,
            _ => self.0.push((line, line, why)),
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(first, last, why)| match first == last {
            true => writeln!(f, "line {first}: {why}"),
            false => writeln!(f, "lines {first} to {last}: {why}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_one_reason_are_told_together() {
        let mut failures = Failures::default();
        for (line, why) in [(2, "bad"), (8, "bad"), (9, "bad"), (10, "bad"), (11, "worse"), (12, "bad")] {
            failures.add(line, why.to_owned());
        }
        assert_eq!(failures.to_string(), "line 2: bad\nlines 8 to 10: bad\nline 11: worse\nline 12: bad\n");
    }

    #[tokio::test(start_paused = true)]
    async fn sums_up() {
        let mut tally = Tally::new(ProgressBar::hidden());
        assert!(tally.is_clean());
        let outcomes = vec![(1, Outcome::Accepted), (2, Outcome::Duplicate), (3, Outcome::Accepted)];
        tally.add(Answer { outcomes, ..Answer::default() });
        assert!(tally.is_clean());
        let broken = (6, Outcome::Broken("not JSON".into()));
        let outcomes = vec![(4, Outcome::Refused("no".into())), (5, Outcome::Unknown("gone".into())), broken];
        tally.add(Answer { outcomes, ..Answer::default() });
        assert!(!tally.is_clean());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            tally.summary(),
            "sent 5, accepted 2, duplicates 1, failed 3 (1 line is broken), in 2.00 s: 2 events/s",
            "3 events in 2 s, rounded to even"
        );
    }
}
