//! Connections, up to the requests in them.

use std::{convert::Infallible, future::Future, time::Duration};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Serves until it is told to stop; then its connections end, too, each a task of `tasks`. Whoever treats a request may cancel
/// the token that comes with it, and stay pending: the connection is reset.
pub async fn serve<B, F>(
    listener: TcpListener,
    http: http1::Builder,
    stop: CancellationToken,
    tasks: TaskTracker,
    treat: impl Fn(Request<Incoming>, CancellationToken) -> F + Clone + Send + 'static,
) where
    B: Body<Data: Send, Error = Infallible> + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                let (http, stop, treat) = (http.clone(), stop.clone(), treat.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = connection(stream, &http, treat) => {}
                    }
                });
            }
            // Out of file descriptors, most likely: the ones in use come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection<B, F>(
    stream: TcpStream,
    http: &http1::Builder,
    treat: impl Fn(Request<Incoming>, CancellationToken) -> F,
) where
    B: Body<Data: Send, Error = Infallible> + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    // Only latency is lost where this fails.
    let _slower = stream.set_nodelay(true);
    let reset = CancellationToken::new();
    let service = {
        let reset = reset.clone();
        service_fn(move |request| treat(request, reset.clone()))
    };
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
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
