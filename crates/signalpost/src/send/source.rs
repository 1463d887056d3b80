//! Lines to events. Reads on a thread of its own, a bounded distance ahead.

mod csv_lines;
mod ndjson;
mod tap;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use signalpost_runtime::Shutdown;
use tokio::sync::mpsc;

use signalpost_wiring::Failure;

/// How far reading is ahead of sending.
const AHEAD: usize = 4_096;

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One event per line, as the API takes it.
    Ndjson,
    /// A line of column names, then one event per line.
    Csv,
}

/// One line, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// The event as the API takes it, or what is wrong with the line.
    pub event: Result<String, String>,
    /// How far the input has been read by the end of this line.
    pub position: u64,
}

/// What is to be read.
pub struct Source {
    input: Box<dyn Read + Send>,
    bytes: Option<u64>,
    format: Format,
    event_type: Option<String>,
    uid_column: Option<String>,
    name: PathBuf,
}

impl Source {
    /// Opens the file, and looks at a CSV's column names.
    pub fn open(
        path: &Path,
        format: Option<Format>,
        event_type: Option<String>,
        uid_column: Option<String>,
    ) -> Result<Self, Failure> {
        let stdin = path.as_os_str() == "-";
        let format = match format {
            Some(format) => format,
            None if stdin => Format::Ndjson,
            None => by_extension(path)?,
        };
        if format == Format::Csv && event_type.is_none() {
            return Err(Failure::setting("CSV needs --type, the type of its events"));
        }
        if format == Format::Ndjson && uid_column.is_some() {
            return Err(Failure::setting("--uid-column is for CSV; an NDJSON line carries its own `uid`"));
        }
        let (input, bytes): (Box<dyn Read + Send>, _) = if stdin {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(|error| Failure::setting(format!("{}: {error}", path.display())))?;
            let bytes = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(file), bytes)
        };
        Ok(Self { input, bytes, format, event_type, uid_column, name: path.to_owned() })
    }

    /// Its size, where it has one.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Starts to read at most `most` lines.
    pub fn read(self, most: u64) -> Items {
        let (lines, receiver) = mpsc::channel(AHEAD);
        let stop = Stopper::default();
        let sink = Sink { lines, left: most, stop: stop.clone() };
        let read = Arc::new(AtomicU64::new(0));
        let input = Counted { input: BufReader::with_capacity(256 * 1024, self.input), read: Arc::clone(&read) };
        // Not a task of the runtime: reading standard input cannot be cancelled, and must not keep the process from ending.
        let thread = std::thread::Builder::new().name("send-read".to_owned()).spawn(move || {
            let name = self.name.display().to_string();
            match self.format {
                Format::Ndjson => ndjson::read(input, self.event_type.as_deref(), &name, sink),
                Format::Csv => {
                    csv_lines::read(input, self.event_type.as_deref(), self.uid_column.as_deref(), &name, &read, sink);
                }
            }
        });
        if let Err(error) = thread {
            // The channel is closed, so nothing is sent; say why.
            eprintln!("signalpost: no thread to read with: {error}");
            stop.stop();
        }
        Items { lines: receiver, stop }
    }
}

fn by_extension(path: &Path) -> Result<Format, Failure> {
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("ndjson" | "jsonl" | "json") => Ok(Format::Ndjson),
        Some("csv") => Ok(Format::Csv),
        _ if !path.exists() => Err(Failure::setting(format!("{}: there is no such file", path.display()))),
        _ => Err(Failure::setting(format!("{}: what is it? Give --format ndjson or csv", path.display()))),
    }
}

/// Ends reading before the end of the input.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Shutdown);

impl Stopper {
    /// From the next line on; who waits for one waits no longer.
    pub fn stop(&self) {
        self.0.drain();
    }

    fn is_stopped(&self) -> bool {
        self.0.is_draining()
    }
}

/// The lines, in order.
pub struct Items {
    lines: mpsc::Receiver<Line>,
    stop: Stopper,
}

impl Items {
    /// The next line; None at the end, or when it is to stop: standard input may never say anything more.
    pub async fn next(&mut self) -> Option<Line> {
        tokio::select! {
            biased;
            () = self.stop.0.draining() => None,
            line = self.lines.recv() => line,
        }
    }

    /// A line that has been read already.
    pub fn ready(&mut self) -> Option<Line> {
        if self.stop.is_stopped() { None } else { self.lines.try_recv().ok() }
    }

    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    pub fn was_stopped(&self) -> bool {
        self.stop.is_stopped()
    }
}

/// Where readers put lines.
struct Sink {
    lines: mpsc::Sender<Line>,
    left: u64,
    stop: Stopper,
}

impl Sink {
    /// False: enough.
    fn put(&mut self, line: Line) -> bool {
        if self.left == 0 || self.stop.is_stopped() {
            return false;
        }
        self.left -= 1;
        self.lines.blocking_send(line).is_ok() && self.left > 0
    }

    /// The input itself is broken: told as a line, so that it counts and makes the exit code.
    fn broken(&mut self, number: u64, position: u64, name: &str, error: &dyn std::fmt::Display) {
        let event = Err(format!("cannot read {name}: {error}"));
        self.left = self.left.max(1);
        self.put(Line { number, event, position });
    }
}

/// Counts what is read.
struct Counted {
    input: BufReader<Box<dyn Read + Send>>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl io::BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.read.fetch_add(amount as u64, Ordering::Relaxed);
        self.input.consume(amount);
    }
}

#[cfg(test)]
mod tests;
