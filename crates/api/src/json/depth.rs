//! How deep a JSON text is nested, before anything parses it.

/// The most levels of objects and lists.
pub const MAX_DEPTH: usize = 128;

/// Whether no place of the text lies deeper than so many levels. Counts brackets outside strings, so that on what is not
/// JSON it says something, too; the parser refuses that afterwards.
pub fn is_shallow(text: &[u8], most: usize) -> bool {
    // Nearly always there are fewer brackets than levels; to count them all takes a fraction of the time.
    if openings(text) <= most {
        return true;
    }
    let mut depth = 0_usize;
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = rest.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            rest.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    true
}

/// How many brackets open, also those within strings. In pieces whose count fits a byte, so that many bytes are looked at at once.
fn openings(text: &[u8]) -> usize {
    let of = |piece: &[u8]| piece.iter().map(|byte| u8::from(matches!(byte, b'{' | b'['))).sum::<u8>();
    text.chunks(128).map(|piece| usize::from(of(piece))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_outside_strings() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(is_shallow(nested(MAX_DEPTH).as_bytes(), MAX_DEPTH));
        assert!(!is_shallow(nested(MAX_DEPTH + 1).as_bytes(), MAX_DEPTH));
        let text = format!(r#"{{"a":"{}\"[[["}}"#, "[{".repeat(200));
        assert!(is_shallow(text.as_bytes(), MAX_DEPTH));
        let wide = format!("[{}]", vec!["[]"; 1000].join(","));
        assert!(is_shallow(wide.as_bytes(), MAX_DEPTH));
        // More of them in a piece than a byte can count twice over.
        assert_eq!(openings("[{".repeat(1000).as_bytes()), 2000);
    }
}
