//! A connection whose answers have to be read: a client that takes none of what waits for it, or takes it drop by drop,
//! loses the connection, and with it the memory of the answer is free.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use signalpost_telemetry::names;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// What a client has to take of an answer, in bytes a second, beyond the patience that it has at first.
const LEAST_RATE: f64 = 16.0 * 1024.0;

/// A stream that gives up.
#[derive(Debug)]
pub struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Since the kernel took no more, until everything is written.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    /// With so much time for an answer that is small.
    pub const fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, stuck: None }
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                if let Some(stuck) = &mut self.stuck {
                    let until = stuck.deadline() + Duration::from_secs_f64(of(count) / LEAST_RATE);
                    stuck.as_mut().reset(until);
                }
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(self.patience)));
                ready!(stuck.as_mut().poll(cx));
                metrics::counter!(names::HTTP_CONNECTIONS_CUT, "reason" => "answer").increment(1);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of bytes in memory")]
const fn of(count: usize) -> f64 {
    count as f64
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when all that there was is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stuck = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
