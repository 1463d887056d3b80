//! Reading bodies: their size before they are kept, their content type, and JSON strictly.
//!
//! [`Body`] is an extractor that has read nothing yet. [`Document`] is a body that is valid UTF-8 and not nested too deep; it is read as [`Members`] (values stay as
//! they were written) or as a map of values.

mod body;
mod budget;
mod depth;
mod members;
mod value;

pub use body::Body;
pub use budget::BodyBudget;
use bytes::Bytes;
pub use depth::{MAX_DEPTH, is_shallow};
use http::{HeaderMap, header};
pub use members::{Members, child, not_json};
use serde_json::{Map, Value, value::RawValue};
use signalpost_core::event;
pub use signalpost_core::event::is_json;
pub use value::read_object;

use crate::problem::{Code, Problem};

/// 415, naming what is taken.
pub fn unsupported(taken: &str) -> Problem {
    Problem::new(Code::UnsupportedMediaType, format!("The Content-Type must be {taken}."))
}

/// The media type of a body, in lower case and without parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let media_type = event::media_type(&String::from_utf8_lossy(value.as_bytes()));
    (!media_type.is_empty()).then_some(media_type)
}

/// A whole value that is JSON, without the white space around it; it lies one level deep already, as a member of an envelope.
///
/// # Errors
/// 400.
pub fn json_data(bytes: &Bytes) -> Result<Bytes, Problem> {
    let raw: &RawValue = serde_json::from_str(check_text(bytes)?).map_err(|error| not_json(&error))?;
    if !is_shallow(bytes, MAX_DEPTH - 1) {
        return Err(too_deep());
    }
    Ok(bytes.slice_ref(raw.get().as_bytes()))
}

/// A body that is valid UTF-8 and not nested deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone)]
pub struct Document(Bytes);

impl Document {
    /// Checks the bytes.
    ///
    /// # Errors
    /// 400.
    pub fn new(bytes: Bytes) -> Result<Self, Problem> {
        check_text(&bytes)?;
        if !is_shallow(&bytes, MAX_DEPTH) {
            return Err(too_deep());
        }
        Ok(Self(bytes))
    }

    /// As it came.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text.
    pub fn text(&self) -> &str {
        // It was checked when it was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The members of the object that it is, values as they were written.
    ///
    /// # Errors
    /// 400 or 422.
    pub fn members(&self) -> Result<Members<'_>, Problem> {
        Members::read(self.text())
    }

    /// The object that it is.
    ///
    /// # Errors
    /// 400 or 422.
    pub fn object(&self) -> Result<Map<String, Value>, Problem> {
        read_object(self.text())
    }
}

/// The text of a body.
///
/// # Errors
/// 400 where it is not UTF-8.
pub fn check_text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::not_json(format!("This is not UTF-8: byte {} is not part of a character.", error.valid_up_to()))
    })
}

/// 400: nested too deep.
pub fn too_deep() -> Problem {
    Problem::not_json(format!("This is nested deeper than {MAX_DEPTH} levels."))
}
