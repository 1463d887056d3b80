//! An event as its producer posted it, whichever form it came in.

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use signalpost_core::EventMeta;

use super::rules::Wrong;
use crate::{
    json::{Members, child},
    problem::{FieldError, Problem},
};

/// A valid event that has no id yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// Its type.
    pub event_type: String,
    /// The producer's own id.
    pub uid: Option<String>,
    /// Where it came from.
    pub source: Option<String>,
    /// All the rest.
    pub meta: EventMeta,
    /// Byte for byte.
    pub data: Bytes,
}

impl Posted {
    /// A hash of everything that its producer said: two events with the same `uid` are the same where these are.
    pub fn content_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        };
        let mut meta = self.meta.clone();
        // Of the request, not of the event.
        meta.traceparent = None;
        add(self.event_type.as_bytes());
        // Maps in it are sorted, so equal ones have equal texts.
        add(&serde_json::to_vec(&meta).unwrap_or_default());
        add(&self.data);
        hash.finalize().into()
    }
}

/// How the bytes of `data` are kept.
#[derive(Clone, Copy)]
pub enum Keep<'a> {
    /// As a part of the body, which is this event's alone.
    PartOf(&'a Bytes),
    /// As a copy: the body holds other events, too, and shall not live as long as the longest of them.
    Copied,
}

impl Keep<'_> {
    /// Keeps a part of the body.
    pub fn keep(self, part: &str) -> Bytes {
        match self {
            Self::PartOf(body) => body.slice_ref(part.as_bytes()),
            Self::Copied => Bytes::copy_from_slice(part.as_bytes()),
        }
    }
}

/// Reads the fields of an event, and notes everything that is wrong with them.
pub struct Reader<'a> {
    members: Members<'a>,
    errors: Vec<FieldError>,
}

impl<'a> Reader<'a> {
    /// Of these members.
    pub const fn new(members: Members<'a>) -> Self {
        Self { members, errors: Vec::new() }
    }

    /// As it was written, be it `null`.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.take(name)
    }

    /// As it was written; None where it is absent or `null`.
    pub fn value(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.take(name).filter(|value| value.get() != "null")
    }

    /// Whether anything was noted about a field.
    pub fn is_wrong(&self, name: &str) -> bool {
        let pointer = child("", name);
        self.errors.iter().any(|error| error.pointer == pointer)
    }

    /// Notes that a field is wrong.
    pub fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(child("", name), detail));
    }

    /// Notes that something within a field is wrong.
    pub fn wrong_at(&mut self, pointer: String, detail: impl Into<String>) {
        self.errors.push(FieldError::new(pointer, detail));
    }

    /// What `read` makes of a text; None where it is absent, `null` or wrong.
    pub fn parsed<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let value = self.value(name)?;
        match text_of(value).and_then(|text| read(&text)) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(name, wrong);
                None
            }
        }
    }

    /// A text that passes the rule.
    pub fn text(&mut self, name: &str, rule: impl FnOnce(&str) -> Result<(), Wrong>) -> Option<String> {
        self.parsed(name, |text| rule(text).map(|()| text.to_owned()))
    }

    /// What nobody took.
    pub fn rest(&mut self) -> Vec<(String, &'a RawValue)> {
        let members = std::mem::take(&mut self.members);
        members.rest().map(|(name, value)| (name.into_owned(), value)).collect()
    }

    /// The value, where nothing is wrong and nothing is left.
    ///
    /// # Errors
    /// 422.
    pub fn finish<T>(mut self, value: impl FnOnce() -> T) -> Result<T, Problem> {
        for (name, _) in self.rest() {
            self.wrong(&name, "is not a known field");
        }
        if self.errors.is_empty() { Ok(value()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// The text of a JSON string.
pub fn text_of(value: &RawValue) -> Result<String, Wrong> {
    if !value.get().starts_with('"') {
        return Err("must be a string".to_owned());
    }
    serde_json::from_str(value.get()).map_err(|_| "must be Unicode: it has a lone surrogate".to_owned())
}
