//! The bodies of answers: whole, dripping, or big.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

/// A body of any kind.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

const CHUNK: usize = 64 * 1024;

/// A short answer.
pub(crate) fn plain(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    with_body(status, Full::new(body.into()).boxed_unsync())
}

/// JSON, for the control paths.
pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    let mut response = plain(status, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The head at once, then `bytes` bytes with a pause before each.
pub(crate) fn dripping(status: u16, bytes: usize, pause: Duration) -> Response<Body> {
    let drops = stream::unfold(0, move |sent| async move {
        if sent == bytes {
            return None;
        }
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from_static(b"."))), sent + 1))
    });
    with_body(status, StreamBody::new(drops).boxed_unsync())
}

/// A body of `bytes` bytes, made as it is read.
pub(crate) fn big(status: u16, bytes: u64) -> Response<Body> {
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = stream::unfold(bytes, move |left| {
        let part = chunk.slice(..usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        async move { (left > 0).then(|| (Ok(Frame::data(part.clone())), left - part.len() as u64)) }
    });
    let mut response = with_body(status, StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}

/// An answer with that status; what is no status becomes 500.
fn with_body(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
