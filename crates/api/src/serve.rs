//! Serves a router on a listener, and stops in two steps.

use std::{io, time::Duration};

use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use signalpost_runtime::Shutdown;
use tokio::net::{TcpListener, TcpStream};

/// A connection whose next request's head does not arrive in this time is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The pause after a failure to accept (no file descriptors left), so that it is not tried in a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` drains; then takes no new connection and lets requests that are under way end, until
/// `shutdown` stops.
///
/// # Errors
/// The listener has no address: it is broken.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).half_close(false);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let service = TowerToHyperService::new(router.clone());
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(ConnectInfo(peer));
                    service.call(request)
                });
                let connection = builder.serve_connection(prepare(stream), service);
                let connection = connections.watch(connection);
                let stopped = shutdown.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        // A client that breaks off is no error of ours.
                        _closed = connection => {}
                        () = stopped.stopped() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = connections.shutdown() => {}
        () = shutdown.stopped() => {}
    }
    Ok(())
}

/// Answers are small and leave at once.
fn prepare(stream: TcpStream) -> TokioIo<TcpStream> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    TokioIo::new(stream)
}
