//! What happened: every step goes into a hash, the last ones are kept as text.

use std::{collections::VecDeque, fmt};

use tokio::time::Instant;

/// How many lines are kept.
const KEPT: usize = 400;

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    start: Instant,
    hash: u64,
    steps: u64,
    kept: VecDeque<String>,
    line: String,
    /// Every line goes to stderr as well.
    loud: bool,
}

impl Trace {
    /// An empty one of a run that begins now.
    pub fn new(loud: bool) -> Self {
        Self {
            start: Instant::now(),
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            kept: VecDeque::new(),
            line: String::new(),
            loud,
        }
    }

    /// Adds a line. What is not `told` counts, but is not shown.
    pub fn add(&mut self, who: &str, what: fmt::Arguments<'_>, told: bool) {
        use fmt::Write as _;
        self.steps += 1;
        self.line.clear();
        let at = self.start.elapsed();
        let _infallible = write!(self.line, "{:>7}.{:03} {who:<14} {what}", at.as_secs(), at.subsec_millis());
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if told {
            if self.loud {
                eprintln!("{}", self.line);
            }
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back(self.line.clone());
        }
    }

    /// Of all lines so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The last lines, oldest first.
    pub fn tail(&self, most: usize) -> Vec<String> {
        let skipped = self.kept.len().saturating_sub(most);
        self.kept.iter().skip(skipped).cloned().collect()
    }
}
