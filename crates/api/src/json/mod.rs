//! Reading bodies: their size before they are kept, their content type, and JSON strictly.
//!
//! [`Body`] is an extractor that has read nothing yet: a handler looks up what the path names first and judges the body
//! after. [`Document`] is a body that is valid UTF-8 and not nested too deep; it is read as [`Members`] (values stay as
//! they were written) or as a map of values.

mod depth;
mod members;
mod value;

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
pub use depth::{MAX_DEPTH, is_shallow};
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt as _;
pub use members::{Members, child, not_json};
use serde_json::{Map, Value, value::RawValue};
use signalpost_core::event;
pub use signalpost_core::event::is_json;
pub use value::read_object;

use crate::{
    problem::{Code, Problem},
    settings::MAX_MANAGE_BYTES,
};

/// A body that arrives slower than this is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A request whose body has not been read.
pub struct Body {
    /// All but the body.
    pub parts: Parts,
    body: axum::body::Body,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        Ok(Self { parts, body })
    }
}

impl Body {
    /// Reads all of it.
    ///
    /// # Errors
    /// 413 where it is larger than `limit`, by its announced length before anything is read; 400 where it breaks off;
    /// 408 where it takes too long.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, Problem> {
        self.read(limit).await.map(|(_, bytes)| bytes)
    }

    /// As [`Self::bytes`], with the rest of the request.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub async fn read(self, limit: usize) -> Result<(Parts, Bytes), Problem> {
        let announced = content_length(&self.parts.headers);
        if announced.is_some_and(|length| length > limit) {
            return Err(Problem::too_large(limit));
        }
        let bytes = tokio::time::timeout(READ_TIMEOUT, collect(self.body, limit, announced.unwrap_or(0)))
            .await
            .map_err(|_| Problem::new(Code::RequestTimeout, "The body did not arrive in time."))??;
        Ok((self.parts, bytes))
    }

    /// The media type, in lower case and without parameters; None where the request has no `Content-Type`.
    pub fn media_type(&self) -> Option<String> {
        media_type(&self.parts.headers)
    }

    /// Reads a JSON body of a management request.
    ///
    /// # Errors
    /// 415, 413, 400.
    pub async fn json(self) -> Result<Document, Problem> {
        let is_json = self.media_type().is_none_or(|media_type| is_json(&media_type));
        if !is_json {
            return Err(unsupported("application/json"));
        }
        Document::new(self.bytes(MAX_MANAGE_BYTES).await?)
    }
}

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

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(mut body: axum::body::Body, limit: usize, announced: usize) -> Result<Bytes, Problem> {
    let broken = |_| Problem::new(Code::BadRequest, "The body broke off.");
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if piece.len() + all.len() + first.as_ref().map_or(0, Bytes::len) > limit {
            return Err(Problem::too_large(limit));
        }
        if let Some(first) = first.take() {
            all.reserve(announced.min(limit));
            all.extend_from_slice(&first);
            all.extend_from_slice(&piece);
        } else if all.is_empty() {
            // The usual small body comes in one piece and is not copied.
            first = Some(piece);
        } else {
            all.extend_from_slice(&piece);
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
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
