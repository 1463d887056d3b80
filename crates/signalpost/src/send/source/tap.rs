//! What a CSV reader does not tell of a record: which line breaks it skipped before it, and whether its last quote was closed. Keeps
//! the bytes that were read and belong to no record yet.

use std::io::{self, Read};

/// Hands bytes on, and keeps them until their record is taken.
pub(super) struct Tap<R> {
    input: R,
    /// What was read and not taken.
    kept: Vec<u8>,
    /// How many bytes were taken.
    taken: u64,
    is_at_end: bool,
}

/// A record as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// How many lines begin before it and after the end of the record before.
    pub breaks_before: u64,
    /// The input ended within its quotes.
    pub is_open: bool,
}

impl<R> Tap<R> {
    pub fn new(input: R) -> Self {
        Self { input, kept: Vec::new(), taken: 0, is_at_end: false }
    }

    /// Takes the record that ends at this byte of the input.
    pub fn take_record(&mut self, end: u64) -> Raw {
        let length = usize::try_from(end.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(self.kept.len());
        let is_last = self.is_at_end && length == self.kept.len();
        let raw = &self.kept[..length];
        let breaks = raw.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
        let raw = Raw { breaks_before: breaks as u64, is_open: is_last && ends_quoted(raw) };
        self.kept.drain(..length);
        self.taken = end;
        raw
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..read]);
        self.is_at_end = read == 0;
        Ok(read)
    }
}

/// Whether one record ends within quotes. As the reader has it, only a quote that begins a field opens, and what follows the closing one
/// is text.
fn ends_quoted(record: &[u8]) -> bool {
    enum At {
        Begin,
        Text,
        Quoted,
        /// After a quote within quotes: it closes them, unless another one follows.
        Quote,
    }
    let last = record.iter().fold(At::Begin, |at, byte| match (at, byte) {
        (At::Begin | At::Quote, b'"') => At::Quoted,
        (At::Quoted, b'"') => At::Quote,
        (At::Quoted, _) => At::Quoted,
        (_, b',' | b'\r' | b'\n') => At::Begin,
        _ => At::Text,
    });
    matches!(last, At::Quoted)
}
