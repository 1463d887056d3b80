//! Requests that are made before a run: while it lasts, only the numbers of their events are written into them.

/// The number of the first event. All numbers of a run have as many digits, so a number that is put in moves nothing.
pub const FIRST_NUMBER: u64 = 1_000_000_000;
/// How many digits.
pub const DIGITS: usize = 10;

/// A place for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where its first digit stands.
    pub at: usize,
    /// Which event of the request it is the number of.
    pub nth: u64,
}

/// One request for one or more events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// All of it, from the request line to the end of the body.
    pub bytes: Vec<u8>,
    /// Where numbers belong.
    pub slots: Vec<Slot>,
}

impl Prepared {
    /// Writes it with the numbers of its events, which follow each other from `first` on.
    pub fn write(&self, first: u64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&self.bytes);
        for slot in &self.slots {
            let mut number = first + slot.nth;
            for digit in into[slot.at..slot.at + DIGITS].iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_NUMBER, Prepared, Slot};

    #[test]
    fn numbers_are_written_where_they_belong() {
        let prepared = Prepared {
            bytes: b"a0000000000b0000000000".to_vec(),
            slots: vec![Slot { at: 1, nth: 0 }, Slot { at: 12, nth: 1 }],
        };
        let mut text = b"what was there".to_vec();
        prepared.write(FIRST_NUMBER + 99, &mut text);
        assert_eq!(text, b"a1000000099b1000000100");
    }
}
