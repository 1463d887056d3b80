//! HTTP alone: requests in, with the server library of our API and nothing behind it, from the producers of all fast
//! scenarios; requests out, with the client library of our sender, to their receiver.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::{Found, Options, Watch};
use crate::{
    ceilings,
    client::TIMEOUT,
    epoch::Epoch,
    load::Pace,
    payload,
    processes::Pids,
    wire::{Client, FIRST_NUMBER, Plan, Sink, Template, Variant},
};

/// Different requests.
const VARIETY: u64 = 512;
/// Requests that only warm up.
const WARM: usize = 4_000;

/// Both.
///
/// # Errors
/// An address is taken, or something is not answered.
pub async fn measure(options: &Options) -> anyhow::Result<[(&'static str, Found); 2]> {
    Ok([(ceilings::HTTP_IN, requests_in(options).await?), (ceilings::HTTP_OUT, requests_out(options).await?)])
}

async fn requests_in(options: &Options) -> anyhow::Result<Found> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                ended = serve(listener) => ended,
                _stopped = stopped => Ok(()),
            }
        })
    })?;
    let template = Template::signalpost(&address.to_string(), "key", false);
    let variant = |seed| Variant { event_type: "limits.0".to_owned(), bytes: options.bytes, seed };
    let requests: Arc<[_]> = (0..VARIETY).map(|seed| template.prepare(&[variant(seed)])).collect();
    let mut found = None;
    for count in [WARM, options.count] {
        let plan = Plan {
            requests: Arc::clone(&requests),
            count: u64::try_from(count)?,
            events: 1,
            first: FIRST_NUMBER,
            pace: Pace::Closed,
            repeat_every: 0,
        };
        let client = Client {
            addresses: vec![address],
            connections: options.connections,
            epoch: Epoch::start(),
            timeout: TIMEOUT,
        };
        let watch = Watch::start(&Pids::default());
        let ran = tokio::task::spawn_blocking(move || client.run(plan, &Arc::default())).await??;
        found = Some(watch.end(count));
        anyhow::ensure!(ran.answers.iter().all(|answer| answer.status == 202), "something was refused");
    }
    drop(stop);
    let _ended = tokio::task::spawn_blocking(move || server.join()).await?;
    found.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

async fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(async move {
            let answer = service_fn(async |request: Request<Incoming>| {
                let body = request.into_body().collect().await?.to_bytes();
                let mut answer = Response::new(Full::new(body.slice(..body.len().min(100))));
                *answer.status_mut() = StatusCode::ACCEPTED;
                answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
                Ok::<_, hyper::Error>(answer)
            });
            server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
        });
    }
}

async fn requests_out(options: &Options) -> anyhow::Result<Found> {
    let epoch = Epoch::start();
    let sink = Sink::start(epoch, (Ipv4Addr::LOCALHOST, 0).into())?;
    let address = sink.address();
    let bodies: Arc<[Bytes]> =
        (0..VARIETY).map(|seed| Bytes::from(payload::data(FIRST_NUMBER + seed, options.bytes))).collect();
    let mut found = None;
    for count in [WARM, options.count] {
        let (bodies, connections) = (Arc::clone(&bodies), options.connections);
        let watch = Watch::start(&Pids::default());
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(send(address, &bodies, count, connections))
        })
        .await??;
        found = Some(watch.end(count));
        let arrived = sink.take().len();
        anyhow::ensure!(arrived == count, "{arrived} of {count} arrived");
    }
    found.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

async fn send(address: SocketAddr, bodies: &Arc<[Bytes]>, count: usize, connections: usize) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut sending = JoinSet::new();
    for _ in 0..connections {
        let (next, bodies) = (Arc::clone(&next), Arc::clone(bodies));
        sending.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut requests, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            loop {
                let nth = usize::try_from(next.fetch_add(1, Ordering::Relaxed))?;
                if nth >= count {
                    break;
                }
                // As many headers as a delivery has.
                let request = Request::post("/1")
                    .header(header::HOST, "127.0.0.1")
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::USER_AGENT, "Signalpost/0.1.0")
                    .header("webhook-id", "evt_01kaf2w6s4e7fs9hq2m8a1b2c3")
                    .header("webhook-timestamp", "1763751234")
                    .header("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=")
                    .header("signalpost-event-type", "limits.0")
                    .header("signalpost-delivery-id", "dlv_01kaf2w6s4e7fs9hq2m8a1b2c3")
                    .header("signalpost-attempt", "1")
                    .body(Full::new(bodies[nth % bodies.len()].clone()))?;
                let answer = requests.send_request(request).await?;
                answer.into_body().collect().await?;
            }
            drop(requests);
            connection.await??;
            anyhow::Ok(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(())
}
