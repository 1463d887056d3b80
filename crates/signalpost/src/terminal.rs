//! What people read: durations, and lines that are printed without holding anybody up.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use signalpost_core::Secret;

/// A secret of the command line: shown by no `Debug`.
#[allow(clippy::unnecessary_wraps, reason = "as clap asks for it")]
pub fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// Lines that wait to be printed; more are counted instead.
const MOST_WAITING: usize = 1_000;

/// A duration with one unit, precise enough for a person: `<1 ms`, `3 ms`, `1.2 s`, `45 s`, `5 min`, `14 h`, `3 d`.
pub fn short(duration: Duration) -> String {
    let (millis, seconds) = (duration.as_millis(), duration.as_secs_f64());
    match seconds {
        _ if millis == 0 => "<1 ms".to_owned(),
        _ if millis < 1_000 => format!("{millis} ms"),
        s if s < 9.95 => {
            let text = format!("{s:.1}");
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        }
        s if s < 119.5 => format!("{s:.0} s"),
        s if s < 119.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s if s < 47.5 * 3_600.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Prints lines on a thread of its own. When there are more than a terminal can take, the rest is counted and told.
#[derive(Debug)]
pub struct Printer {
    lines: Option<SyncSender<String>>,
    left_out: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Printer {
    /// Prints to standard output.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start() -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel(MOST_WAITING);
        let left_out = Arc::new(AtomicU64::new(0));
        let thread = {
            let left_out = Arc::clone(&left_out);
            std::thread::Builder::new().name("printer".to_owned()).spawn(move || print_all(&waiting, &left_out))?
        };
        Ok(Self { lines: Some(lines), left_out, thread: Some(thread) })
    }

    /// Prints a line soon. Never waits.
    pub fn print(&self, line: String) {
        let full = self.lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err());
        if full {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Printer {
    /// Prints what waits.
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn print_all(waiting: &Receiver<String>, left_out: &AtomicU64) {
    while let Ok(line) = waiting.recv() {
        let mut out = std::io::stdout().lock();
        // Nobody reading is no reason to stop.
        let _nobody_reads = writeln!(out, "{line}");
        while let Ok(line) = waiting.try_recv() {
            let _nobody_reads = writeln!(out, "{line}");
        }
        let left_out = left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let _nobody_reads = writeln!(out, "… and {left_out} more, too many to print");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let told: Vec<_> = [0, 3, 999, 1_000, 1_240, 9_940, 9_960, 59_600, 300_000, 7_200_000, 50_400_000, 345_600_000]
            .map(|millis| short(Duration::from_millis(millis)))
            .into();
        let expected =
            ["<1 ms", "3 ms", "999 ms", "1 s", "1.2 s", "9.9 s", "10 s", "60 s", "5 min", "2 h", "14 h", "4 d"];
        assert_eq!(told, expected);
    }
}
