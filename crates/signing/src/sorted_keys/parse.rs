//! Reads JSON (RFC 8259) without losing anything that Python keeps.

use std::{borrow::Cow, collections::BTreeMap};

use super::{MAX_DEPTH, Node, Text};

/// The whole text; none where it is not one JSON value.
pub fn document(text: &str) -> Option<Node<'_>> {
    let mut parser = Parser { text, at: 0 };
    parser.space();
    let node = parser.value(MAX_DEPTH)?;
    parser.space();
    (parser.at == text.len()).then_some(node)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes this one character, where it is next.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Node<'a>> {
        match self.peek()? {
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b'"' => self.string().map(Node::Text),
            b'-' | b'0'..=b'9' => self.number(),
            _ => ["null", "true", "false"].into_iter().find_map(|word| self.word(word)),
        }
    }

    fn word(&mut self, word: &'static str) -> Option<Node<'a>> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            Node::Verbatim(word)
        })
    }

    fn object(&mut self, depth: usize) -> Option<Node<'a>> {
        let mut members = BTreeMap::new();
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(Node::Object(members));
        }
        loop {
            let name = self.string()?;
            self.space();
            self.take(b':')?;
            self.space();
            // The last one of a name stays.
            members.insert(name, self.value(depth)?);
            self.space();
            if self.take(b'}').is_some() {
                return Some(Node::Object(members));
            }
            self.take(b',')?;
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Option<Node<'a>> {
        let mut items = Vec::new();
        self.take(b'[')?;
        self.space();
        if self.take(b']').is_some() {
            return Some(Node::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            if self.take(b']').is_some() {
                return Some(Node::Array(items));
            }
            self.take(b',')?;
            self.space();
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<Node<'a>> {
        let start = self.at;
        let _sign = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        let mut whole = true;
        if self.take(b'.').is_some() {
            whole = false;
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            whole = false;
            let _sign = self.take(b'+').or_else(|| self.take(b'-'));
            self.digits()?;
        }
        let text = self.text.get(start..self.at)?;
        match (whole, text) {
            (true, "-0") => Some(Node::Verbatim("0")),
            (true, _) => Some(Node::Verbatim(text)),
            (false, _) => text.parse().ok().map(Node::Float),
        }
    }

    fn string(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let start = self.at;
        let mut unescaped: Option<Vec<u8>> = None;
        let mut run = start;
        loop {
            match self.peek()? {
                b'"' => {
                    let rest = self.text.as_bytes().get(run..self.at)?;
                    self.at += 1;
                    return Some(match unescaped {
                        None => Cow::Borrowed(rest),
                        Some(mut bytes) => {
                            bytes.extend_from_slice(rest);
                            Cow::Owned(bytes)
                        }
                    });
                }
                b'\\' => {
                    let bytes = unescaped.get_or_insert_default();
                    bytes.extend_from_slice(self.text.as_bytes().get(run..self.at)?);
                    self.at += 1;
                    push(bytes, self.escape()?);
                    run = self.at;
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    /// The code point of what follows a backslash; maybe half of a surrogate pair, where the other half is missing.
    fn escape(&mut self) -> Option<u32> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => u32::from(byte),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let first = self.hex()?;
                let after = self.at;
                if (0xd800..0xdc00).contains(&first) && self.take(b'\\').and_then(|()| self.take(b'u')).is_some() {
                    // Python fails where the second is no four digits, as this does.
                    let second = self.hex()?;
                    if (0xdc00..0xe000).contains(&second) {
                        return Some(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                    }
                }
                self.at = after;
                first
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
    }
}

/// Appends a code point as UTF-8; half of a surrogate pair in the same way.
fn push(bytes: &mut Vec<u8>, code: u32) {
    #[allow(clippy::cast_possible_truncation, reason = "masked to six bits, and the head of three bytes to four")]
    match char::from_u32(code) {
        Some(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            bytes.extend([0xe0 | (code >> 12) as u8, 0x80 | ((code >> 6) & 0x3f) as u8, 0x80 | (code & 0x3f) as u8])
        }
    }
}
