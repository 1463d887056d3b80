//! Requests.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
};
use signalpost_receiver::connections;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Behaviour, Failure, Log};
use crate::{chance, epoch::Epoch, payload};

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    pub epoch: Epoch,
    pub log: Log,
    /// By the number of their path.
    pub behaviours: RwLock<Vec<Behaviour>>,
}

/// Serves until it is told to stop.
pub async fn accept(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let treat = move |request, reset| treat(Arc::clone(&server), request, reset);
    connections::serve(listener, http1::Builder::new(), stop, TaskTracker::new(), treat).await;
}

/// A request in progress; its end is noted when it is answered, or when it is dropped because its client has gone.
struct InProgress {
    server: Arc<Server>,
    place: usize,
    ended: bool,
}

impl InProgress {
    fn end(&mut self, status: Option<u16>) {
        if !self.ended {
            self.ended = true;
            self.server.log.end(self.place, self.server.epoch.now(), status);
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.end(None);
    }
}

async fn treat(
    server: Arc<Server>,
    request: Request<Incoming>,
    reset: CancellationToken,
) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    // The client went before its request was complete: nothing arrived.
    let Ok(body) = body.collect().await else { return Ok(answer(400, empty())) };
    let body = body.to_bytes();
    let path: Option<u32> = head.uri.path().trim_start_matches('/').parse().ok();
    let behaviour = path.and_then(|path| {
        let behaviours = server.behaviours.read().unwrap_or_else(PoisonError::into_inner);
        behaviours.get(usize::try_from(path).ok()?).copied()
    });
    let (Some(path), Some(behaviour)) = (path, behaviour) else { return Ok(answer(404, empty())) };
    let attempt = head.headers.get("signalpost-attempt").and_then(|value| value.to_str().ok()?.parse().ok());
    let place = server.log.begin(payload::number_in(&body), path, attempt.unwrap_or(0), || server.epoch.now());
    let mut request = InProgress { server, place, ended: false };
    if !behaviour.latency.is_zero() {
        tokio::time::sleep(behaviour.latency).await;
    }
    if !chance::happens(behaviour.probability, u64::try_from(place).unwrap_or(0)) {
        request.end(Some(200));
        return Ok(answer(200, empty()));
    }
    Ok(match behaviour.failure {
        Failure::Status(status) => {
            request.end(Some(status));
            answer(status, empty())
        }
        Failure::Drip => answer(200, dripping(request)),
        Failure::Reset => {
            request.end(None);
            reset.cancel();
            std::future::pending().await
        }
        // Until the client goes: then `request` is dropped and its end noted.
        Failure::Hang => std::future::pending().await,
    })
}

fn answer(status: u16, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

type Answer = UnsyncBoxBody<Bytes, Infallible>;

fn empty() -> Answer {
    Empty::new().boxed_unsync()
}

/// A byte each second. The request ends when its client goes.
fn dripping(request: InProgress) -> Answer {
    let every = tokio::time::interval(Duration::from_secs(1));
    let drops = stream::unfold((every, request), |(mut every, request)| async move {
        every.tick().await;
        Some((Ok(Frame::data(Bytes::from_static(b"."))), (every, request)))
    });
    StreamBody::new(drops).boxed_unsync()
}
