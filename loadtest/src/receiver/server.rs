//! Connections and requests.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Interval,
};
use tokio_util::sync::CancellationToken;

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
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(serve(stream, Arc::clone(&server)));
                }
                // Out of file descriptors, most likely: the ones in use come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    // Only latency is lost where this fails.
    let _slower = stream.set_nodelay(true);
    let reset = CancellationToken::new();
    let service = {
        let reset = reset.clone();
        service_fn(move |request| treat(Arc::clone(&server), request, reset.clone()))
    };
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = reset.cancelled() => {
            // Closing with a linger of zero sends RST instead of FIN.
            let _fin_instead = connection.into_parts().io.into_inner().set_zero_linger();
        }
        // A client that breaks the connection off is none of our errors.
        _closed = &mut connection => {}
    }
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
    let Ok(body) = body.collect().await else { return Ok(answer(400, Answer::Empty)) };
    let body = body.to_bytes();
    let path: Option<u32> = head.uri.path().trim_start_matches('/').parse().ok();
    let behaviour = path.and_then(|path| {
        let behaviours = server.behaviours.read().unwrap_or_else(PoisonError::into_inner);
        behaviours.get(usize::try_from(path).ok()?).copied()
    });
    let (Some(path), Some(behaviour)) = (path, behaviour) else { return Ok(answer(404, Answer::Empty)) };
    let attempt = head.headers.get("signalpost-attempt").and_then(|value| value.to_str().ok()?.parse().ok());
    let place = server.log.begin(payload::number_in(&body), path, attempt.unwrap_or(0), || server.epoch.now());
    let mut request = InProgress { server, place, ended: false };
    if !behaviour.latency.is_zero() {
        tokio::time::sleep(behaviour.latency).await;
    }
    if !chance::happens(behaviour.probability, u64::try_from(place).unwrap_or(0)) {
        request.end(Some(200));
        return Ok(answer(200, Answer::Empty));
    }
    Ok(match behaviour.failure {
        Failure::Status(status) => {
            request.end(Some(status));
            answer(status, Answer::Empty)
        }
        Failure::Drip => answer(200, Answer::Drip(Box::new(Drip::new(request)))),
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

/// The body of an answer.
enum Answer {
    Empty,
    Drip(Box<Drip>),
}

/// A byte each second. The request ends when its client goes.
struct Drip {
    every: Interval,
    _request: InProgress,
}

impl Drip {
    fn new(request: InProgress) -> Self {
        Self { every: tokio::time::interval(Duration::from_secs(1)), _request: request }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Drip(drip) => drip.every.poll_tick(cx).map(|_tick| Some(Ok(Frame::data(Bytes::from_static(b"."))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }
}
