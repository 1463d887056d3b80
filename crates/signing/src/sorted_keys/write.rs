//! Writes JSON as Python does.

use std::fmt::Write as _;

use super::Node;

/// Appends a value.
pub fn node(node_: &Node<'_>, out: &mut String) {
    match node_ {
        Node::Verbatim(text) => out.push_str(text),
        Node::Float(number) => float(*number, out),
        Node::Text(bytes) => text(bytes, out),
        Node::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                node(item, out);
            }
            out.push(']');
        }
        Node::Object(members) => {
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                text(name, out);
                out.push_str(": ");
                node(value, out);
            }
            out.push('}');
        }
    }
}

/// A string, in ASCII alone (`ensure_ascii`).
fn text(bytes: &[u8], out: &mut String) {
    out.push('"');
    let mut rest = bytes;
    while let Some((code, after)) = next(rest) {
        rest = after;
        match code {
            0x22 => out.push_str("\\\""),
            0x5c => out.push_str("\\\\"),
            0x0a => out.push_str("\\n"),
            0x0d => out.push_str("\\r"),
            0x09 => out.push_str("\\t"),
            0x0c => out.push_str("\\f"),
            0x08 => out.push_str("\\b"),
            0x20..=0x7e => out.extend(char::from_u32(code)),
            0x1_0000.. => {
                escape(0xd800 + ((code - 0x1_0000) >> 10), out);
                escape(0xdc00 + ((code - 0x1_0000) & 0x3ff), out);
            }
            _ => escape(code, out),
        }
    }
    out.push('"');
}

fn escape(unit: u32, out: &mut String) {
    // Writing to a `String` does not fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// The first code point of what is well-formed, and the rest.
fn next(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (head, more) = match first {
        0..=0x7f => return Some((u32::from(*first), rest)),
        0x80..=0xdf => (first & 0x1f, 1),
        0xe0..=0xef => (first & 0x0f, 2),
        _ => (first & 0x07, 3),
    };
    let (tail, rest) = rest.split_at_checked(more)?;
    Some((tail.iter().fold(u32::from(head), |code, byte| (code << 6) | u32::from(byte & 0x3f)), rest))
}

/// `repr` of a double: the shortest digits that read as the same number, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64, out: &mut String) {
    if number.is_infinite() {
        return out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let scientific = shortest(number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    out.push_str(sign);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let digits: String = mantissa.chars().filter(|character| *character != '.').collect();
    match usize::try_from(exponent) {
        Err(_) => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
            out.push_str(&digits);
        }
        Ok(exponent) if digits.len() > exponent + 1 => {
            out.push_str(&digits[..=exponent]);
            out.push('.');
            out.push_str(&digits[exponent + 1..]);
        }
        Ok(exponent) => {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', exponent + 1 - digits.len()));
            out.push_str(".0");
        }
    }
}

/// The shortest digits that read as this number, with an exponent. Where two of that length are equally near, Python takes the even one, and
/// Rust the greater: so the number is rounded once more to as many digits, which Rust does to even.
fn shortest(number: f64) -> String {
    let shortest = format!("{number:e}");
    let mantissa = shortest.split_once('e').map_or("", |(mantissa, _)| mantissa);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let even = format!("{number:.*e}", digits.saturating_sub(1));
    // Next to a power of two the nearest of that length may be another number's.
    if even.parse() == Ok(number) { even } else { shortest }
}
