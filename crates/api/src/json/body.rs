//! The body of a request: an extractor that has read nothing yet, so that a handler looks up what the path names first,
//! and judges the body after. Nobody's body is read before his key is known.
//!
//! A body is bounded three times: by its own limit (by its announced length before anything is read), by what all
//! bodies together may take up ([`super::BodyBudget`]), and by time: it must come as fast as [`LEAST_RATE`], beyond a
//! start, so that a drip holds neither connection nor memory.

use std::{sync::Arc, time::Duration};

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt as _;
use signalpost_core::event::is_json;
use tokio::time::{Instant, timeout_at};

use super::{Document, budget::Held, media_type, unsupported};
use crate::{
    problem::{Code, Problem},
    settings::MAX_MANAGE_BYTES,
    state::AppState,
};

/// A body that takes longer is given up, however fast it comes.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What a body may take longer than by [`LEAST_RATE`].
const START: Duration = Duration::from_secs(10);

/// In bytes a second.
const LEAST_RATE: u32 = 4096;

/// What is reserved for a body that comes in several pieces, at most, whatever length was announced: that costs nothing
/// to claim.
const FIRST_BYTES: usize = 64 * 1024;

/// A body of so many bytes is copied.
const COPIED: usize = 4096;

/// A request whose body has not been read.
pub struct Body {
    /// All but the body.
    pub parts: Parts,
    body: axum::body::Body,
    held: Held,
}

impl FromRequest<AppState> for Body {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        Ok(Self { parts, body, held: state.bodies.hold() })
    }
}

impl Body {
    /// Reads all of it.
    ///
    /// # Errors
    /// 413 where it is larger than `limit`, by its announced length before anything is read; 400 where it breaks off;
    /// 408 where it comes too slowly; 503 where all bodies together are too large.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, Problem> {
        self.read(limit).await.map(|(_, bytes)| bytes)
    }

    /// As [`Self::bytes`], with the rest of the request. As long as that lives, the body counts among all.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub async fn read(mut self, limit: usize) -> Result<(Parts, Bytes), Problem> {
        let announced = content_length(&self.parts.headers);
        if announced.is_some_and(|length| length > limit) {
            return Err(Problem::too_large(limit));
        }
        let bytes = collect(self.body, limit, announced.unwrap_or(0), &mut self.held).await?;
        self.parts.extensions.insert(Arc::new(self.held));
        Ok((self.parts, bytes))
    }

    /// The media type, in lower case and without parameters; None where the request has no `Content-Type`.
    pub fn media_type(&self) -> Option<String> {
        media_type(&self.parts.headers)
    }

    /// Reads a JSON body of a management request.
    ///
    /// # Errors
    /// 415, and as [`Self::bytes`].
    pub async fn json(self) -> Result<Document, Problem> {
        let is_json = self.media_type().is_none_or(|media_type| is_json(&media_type));
        if !is_json {
            return Err(unsupported("application/json"));
        }
        Document::new(self.bytes(MAX_MANAGE_BYTES).await?)
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(
    mut body: axum::body::Body,
    limit: usize,
    announced: usize,
    held: &mut Held,
) -> Result<Bytes, Problem> {
    let started = Instant::now();
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut length = 0;
    loop {
        let until = started + patience(length);
        let frame = timeout_at(until, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Problem::new(Code::RequestTimeout, "The body did not arrive in time."))?
        else {
            return Ok(first.unwrap_or_else(|| all.freeze()));
        };
        let Ok(piece) = frame.map_err(|_| Problem::new(Code::BadRequest, "The body broke off."))?.into_data() else {
            continue;
        };
        length += piece.len();
        if length > limit {
            return Err(Problem::too_large(limit));
        }
        held.grow(piece.len())?;
        if let Some(first) = first.take() {
            all.reserve(announced.min(limit).min(FIRST_BYTES));
            all.extend_from_slice(&first);
            all.extend_from_slice(&piece);
        } else if all.is_empty() {
            // The usual body comes in one piece. A small one is copied: what lies within the buffer of its connection keeps all of
            // that, for as long as its event waits.
            first = Some(if piece.len() <= COPIED { Bytes::copy_from_slice(&piece) } else { piece });
        } else {
            all.extend_from_slice(&piece);
        }
    }
}

/// How long a body may take of which so much has come.
fn patience(length: usize) -> Duration {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    (START + Duration::from_secs(1) * length / LEAST_RATE).min(READ_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};

    use super::*;
    use crate::json::BodyBudget;

    /// A body of pieces of that size, one in each interval.
    fn dripping(size: usize, every: Duration) -> axum::body::Body {
        let piece = Bytes::from(vec![b'x'; size]);
        axum::body::Body::from_stream(stream::repeat(piece).then(move |piece| async move {
            tokio::time::sleep(every).await;
            Ok::<_, Infallible>(piece)
        }))
    }

    async fn read(body: axum::body::Body, limit: usize, budget: &BodyBudget) -> (Result<Bytes, Code>, u64) {
        let started = Instant::now();
        let read = collect(body, limit, 0, &mut budget.hold()).await.map_err(|problem| problem.code);
        (read, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_come_as_fast_as_a_slow_line() {
        let budget = BodyBudget::new(usize::MAX);
        let (limit, second) = (16 * 1024 * 1024, Duration::from_secs(1));
        assert_eq!(read(dripping(1, second), limit, &budget).await, (Err(Code::RequestTimeout), 10));
        assert_eq!(read(dripping(2048, second), limit, &budget).await, (Err(Code::RequestTimeout), 19));
        assert_eq!(read(dripping(8192, second), limit, &budget).await, (Err(Code::RequestTimeout), 60));
        assert_eq!(read(dripping(8192, second), 80 * 1024, &budget).await, (Err(Code::PayloadTooLarge), 11));
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let budget = BodyBudget::new(100);
        let mut other = budget.hold();
        other.grow(60).unwrap();
        let body = || axum::body::Body::from(vec![b'x'; 41]);
        let problem = collect(body(), 1000, 41, &mut budget.hold()).await.unwrap_err();
        assert_eq!((problem.code, problem.retry_after), (Code::Unavailable, Some(1)));
        drop(other);
        assert_eq!(collect(body(), 1000, 41, &mut budget.hold()).await.unwrap().len(), 41);
    }
}
