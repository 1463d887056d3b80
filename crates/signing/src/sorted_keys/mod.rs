//! JSON as Python's `json.dumps(json.loads(body), sort_keys=True)` writes it.
//!
//! What that means: members in the order of their names (by code point), the last of those with the same name; `", "` and `": "` between them; all
//! but ASCII as `\uXXXX` in lower case; whole numbers as they are, however long; others as Python's `repr` of the nearest double.
//! A half of a surrogate pair stays what it is.
//!
//! Differences: where Python takes what is not JSON (`NaN`, UTF-16, half a surrogate pair in UTF-8), or refuses JSON (whole numbers of more than 4,300
//! digits, nesting over its recursion limit), this does not.

mod parse;
mod write;

use std::{borrow::Cow, collections::BTreeMap};

/// The deepest nesting; deeper is as if it were no JSON.
pub const MAX_DEPTH: usize = 200;

/// A document.
enum Node<'a> {
    /// `null`, `true`, `false`, or a whole number.
    Verbatim(&'a str),
    /// Another number.
    Float(f64),
    /// A string, unescaped.
    Text(Text<'a>),
    Array(Vec<Node<'a>>),
    Object(BTreeMap<Text<'a>, Node<'a>>),
}

/// UTF-8 that may hold halves of surrogate pairs (WTF-8). Its bytes are in the order of its code points.
type Text<'a> = Cow<'a, [u8]>;

/// The document as Python writes it; none where the body is not JSON.
pub fn sorted_keys(body: &[u8]) -> Option<String> {
    let node = parse::document(std::str::from_utf8(body).ok()?)?;
    let mut text = String::with_capacity(body.len() + body.len() / 8);
    write::node(&node, &mut text);
    Some(text)
}

#[cfg(test)]
mod tests;
