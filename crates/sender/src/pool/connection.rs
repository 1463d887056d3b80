//! One connection, driven by whoever waits for its answer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Frame, Incoming},
    client::conn::{TrySendError, http1},
};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::client::READ_BYTES;

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection with its two ends: where requests go in, and what reads and writes.
pub(crate) struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    /// None: it has ended.
    driver: Option<http1::Connection<Stream, Full<Bytes>>>,
}

/// Why there is no response.
pub(crate) enum Unanswered {
    /// The connection ended before a byte of the request was written.
    Unsent(Box<Request<Full<Bytes>>>, hyper::Error),
    /// It ended after that.
    Broken(hyper::Error),
}

impl Connection {
    pub(super) async fn over(stream: Stream) -> Result<Self, hyper::Error> {
        let (requests, driver) = http1::Builder::new().max_buf_size(READ_BYTES).handshake(stream).await?;
        Ok(Self { requests, driver: Some(driver) })
    }

    /// Sends a request and waits for the head of its response. What the server said or did meanwhile is read first, so that
    /// a connection that it has closed takes no request.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        let mut response = pin!(self.requests.try_send_request(request));
        let response = poll_fn(|context| {
            self.drive(context);
            // Only the driver answers, and it has just been asked: no need to be woken by it.
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        response.await.map_err(|mut error: TrySendError<_>| match error.take_message() {
            Some(request) => Unanswered::Unsent(Box::new(request), error.into_error()),
            None => Unanswered::Broken(error.into_error()),
        })
    }

    /// The next piece of the body of its response.
    pub(crate) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let mut next = || Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
        poll_fn(|context| {
            // What is there is taken first: it makes room for more.
            let ready = next();
            if ready.is_ready() {
                return ready;
            }
            self.drive(context);
            next()
        })
        .await
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(context).is_ready()
        {
            // Gives back a request that it has not begun. Errors reach the request, or nobody asks for them.
            self.driver = None;
        }
    }

    /// Between two requests: whether another one may follow. Wakes nobody from now on: the task that drove it would be kept by it.
    pub(super) fn settle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.requests.is_ready()
    }

    /// Says goodbye, as TLS wants it, as far as that can be done without waiting.
    pub(super) fn close(self) {
        let Self { requests, driver } = self;
        drop(requests);
        if let Some(mut driver) = driver {
            let _ended: Poll<_> = Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
