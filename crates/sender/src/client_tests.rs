//! Against servers that speak raw TCP, so that they can misbehave.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::FutureExt as _;
use signalpost_core::{
    DestinationId, DestinationSpec, EventId, EventMeta, Kept, Secret, TenantId, destination::BodyFormat,
    retry_policy::RetryPolicy,
};
use signalpost_runtime::{SystemClock, SystemEntropy};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const AT: Timestamp = Timestamp::from_millis(1_700_000_000_500);

fn destination(url: &str) -> Destination {
    let at = Timestamp::from_millis(0);
    Destination::new(
        DestinationId::from_parts(at, [1; 10]),
        TenantId::DEFAULT,
        DestinationSpec {
            name: "test".into(),
            description: None,
            url: url.into(),
            event_types: Vec::new(),
            method: destination::Method::Post,
            header_names: std::collections::BTreeSet::new(),
            signatures: signalpost_core::signature::default_signatures(),
            body_format: BodyFormat::Standard,
            timeout_ms: 5000,
            rate_limit: None,
            max_in_flight: destination::default_max_in_flight(),
            retry: RetryPolicy::default(),
            circuit: signalpost_core::CircuitPolicy::default(),
            guarantee: signalpost_core::Guarantee::default(),
            ordering: signalpost_core::ordering::Ordering::default(),
            disable_after: destination::DisableAfter::default(),
            metadata: BTreeMap::new(),
        },
        Kept::plain(SECRET),
        at,
    )
}

fn event() -> Event {
    Event {
        id: EventId::from_parts(Timestamp::from_millis(1_700_000_000_000), [2; 10]),
        tenant_id: TenantId::DEFAULT,
        event_type: "order.created".into(),
        uid: Some("o-1".into()),
        source: None,
        meta: EventMeta::default(),
        data: Bytes::from_static(br#"{"total":42}"#),
    }
}

fn settings() -> SenderSettings {
    let egress = EgressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..EgressPolicy::public_only() };
    let vault = Arc::new(KeyRing::parse("test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap());
    SenderSettings::new(egress, Arc::new(SystemClock::new()), Arc::new(SystemEntropy), vault)
}

fn sender() -> Sender {
    Sender::new(settings()).unwrap()
}

async fn send(sender: &Sender, destination: &Destination) -> Exchange {
    let delivery_id = DeliveryId::from_parts(AT, [3; 10]);
    sender.send(&Outgoing { destination, event: &event(), delivery_id, attempt: 3, at: AT, traceparent: None }).await
}

/// A server that hands every connection, with its number, to `handle`.
async fn serve<H, F>(handle: H) -> SocketAddr
where
    H: Fn(TcpStream, usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(handle(stream, number));
        }
    });
    address
}

/// Reads one request; its head and its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length =
                head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse::<usize>().unwrap();
            let mut body = bytes[end + 4..].to_vec();
            let have = body.len();
            body.resize(length, 0);
            stream.read_exact(&mut body[have..]).await.unwrap();
            return (head, body);
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the client hung up within a request");
        bytes.extend_from_slice(&buffer[..count]);
    }
}

/// A server that answers the first request of every connection with these bytes and closes.
async fn answering(bytes: &'static [u8]) -> SocketAddr {
    serve(move |mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(bytes).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn a_request_has_everything_and_its_signature_verifies() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            seen.send(read_request(&mut stream).await).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await.unwrap();
        }
    })
    .await;
    let mut destination = destination(&format!("http://localhost:{}/a/b?c=d#e", address.port()));
    let headers = [("x-order".to_owned(), Secret::new("{event.uid} {event.type} {attempt} {timestamp}"))].into();
    destination.secrets = Kept::Plain { secret: Secret::new(SECRET), headers };
    destination.spec.method = destination::Method::Put;
    let exchange = send(&sender(), &destination).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    assert_eq!((exchange.status_code, &exchange.response_excerpt[..], exchange.error), (Some(200), &b"fine"[..], None));

    let (head, body) = requests.recv().await.unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("put /a/b?c=d http/1.1"));
    let headers: BTreeMap<_, _> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let id = event().id.to_string();
    for (name, value) in [
        ("host", format!("localhost:{}", address.port())),
        ("content-type", "application/json".into()),
        ("user-agent", concat!("signalpost/", env!("CARGO_PKG_VERSION")).into()),
        ("webhook-id", id.clone()),
        ("webhook-timestamp", "1700000000".into()),
        ("signalpost-event-type", "order.created".into()),
        ("signalpost-delivery-id", DeliveryId::from_parts(AT, [3; 10]).to_string()),
        ("signalpost-attempt", "3".into()),
        ("x-order", "o-1 order.created 3 1700000000".into()),
    ] {
        assert_eq!(headers.get(name), Some(&value.as_str()), "{name}");
    }
    assert_eq!(headers["traceparent"].len(), 55);
    let span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (event, delivery_id, destination) = (&event(), DeliveryId::from_parts(AT, [3; 10]), &destination);
    let traceparent = Some(span);
    sender().send(&Outgoing { destination, event, delivery_id, attempt: 3, at: AT, traceparent }).await;
    assert!(requests.recv().await.unwrap().0.contains(&format!("\r\ntraceparent: {span}")));
    let secret = signalpost_signing::Secret::parse(SECRET).unwrap();
    // Header values keep their case in base64; the head above is in lower case, so the signature is made anew.
    assert_eq!(headers["webhook-signature"], secret.sign(&id, 1_700_000_000, &body).to_lowercase());
    assert!(body.ends_with(br#""data":{"total":42}}"#));
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            seen.send(read_request(&mut stream).await.1).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let mut destination = destination(&format!("http://{address}/"));
    destination.spec.body_format = BodyFormat::Data;
    let large = Event { data: Bytes::from(vec![b'7'; 1024 * 1024]), ..event() };
    let delivery_id = DeliveryId::from_parts(AT, [3; 10]);
    let outgoing =
        Outgoing { destination: &destination, event: &large, delivery_id, attempt: 1, at: AT, traceparent: None };
    let exchange = sender().send(&outgoing).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    assert!(requests.recv().await.unwrap() == large.data);
}

#[tokio::test]
async fn answers_are_read_as_they_are() {
    for (bytes, answer, error) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Some((204, None)), None),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno", Some((500, None)), None),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", Some((302, None)), None),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", Some((429, Some(7))), None),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", Some((200, None)), None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some((200, None)), None),
        (b"", None, Some("connection closed without a response")),
        (b"HTTP/1.1 200 OK\r\n", None, Some("connection closed without a response")),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", None, Some("the response is not HTTP")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour", None, Some("the response was cut off")),
    ] {
        let address = answering(bytes).await;
        let exchange = send(&sender(), &destination(&format!("http://{address}/"))).await;
        let expected = answer.map_or(Answer::Unreachable, |(code, after): (u16, Option<u64>)| Answer::Status {
            code,
            retry_after: after.map(Duration::from_secs),
        });
        let text = String::from_utf8_lossy(bytes);
        assert_eq!((exchange.answer, exchange.error.as_deref()), (expected, error), "{text}");
    }
}

#[tokio::test]
async fn of_a_huge_body_only_the_beginning_is_read() {
    let (ended, mut written) = mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
            let mut sent = 0_usize;
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {
                sent += 65536;
            }
            ended.send(sent).unwrap();
        }
    })
    .await;
    let exchange = send(&sender(), &destination(&format!("http://{address}/"))).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    assert_eq!(&exchange.response_excerpt[..], [b'x'; KEPT_BYTES]);
    // The connection was given up: the server could not go on. What it wrote lies in the buffers of the two kernels.
    assert!(written.recv().await.unwrap() < 100_000_000);
}

#[tokio::test]
async fn a_body_is_kept_as_it_came() {
    // The first bytes of what gzip makes of a gigabyte of zeros. Nobody asked for it, nobody unpacks it.
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xec\xc1\x01\x0d\x00\x00";
    let (seen, mut requests) = mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            seen.send(read_request(&mut stream).await.0).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 16\r\n\r\n").await.unwrap();
            stream.write_all(packed).await.unwrap();
        }
    })
    .await;
    let exchange = send(&sender(), &destination(&format!("http://{address}/"))).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    assert_eq!(&exchange.response_excerpt[..], packed);
    assert!(!requests.recv().await.unwrap().contains("accept-encoding"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let inner = serve(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { reply(&mut stream).await }
    })
    .await;
    let sender = sender();
    for code in [301, 302, 303, 307, 308] {
        let address = serve(move |mut stream, _| async move {
            read_request(&mut stream).await;
            let head = format!("HTTP/1.1 {code} Go\r\nlocation: http://{inner}/\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        })
        .await;
        let exchange = send(&sender, &destination(&format!("http://{address}/"))).await;
        assert_eq!(exchange.answer, Answer::Status { code, retry_after: None });
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    // The counter counts.
    assert_eq!(send(&sender, &destination(&format!("http://{inner}/"))).await.status_code, Some(200));
    assert_eq!(reached.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn headers_that_grow_too_large_are_not_sent() {
    let address = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut destination = destination(&format!("http://{address}/"));
    // 3.8 KiB as it is set, 90 KiB as it is sent.
    let headers = [("x-grows".to_owned(), Secret::new("{event.uid}".repeat(350)))].into();
    destination.secrets = Kept::Plain { secret: Secret::new(SECRET), headers };
    let large = Event { uid: Some("u".repeat(256)), ..event() };
    let delivery_id = DeliveryId::from_parts(AT, [3; 10]);
    let outgoing =
        Outgoing { destination: &destination, event: &large, delivery_id, attempt: 1, at: AT, traceparent: None };
    let exchange = sender().send(&outgoing).await;
    assert_eq!(exchange.answer, Answer::Unreachable);
    assert_eq!(exchange.error.as_deref(), Some("the headers of the request are too large"));
    let exchange = send(&sender(), &destination).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{:?}", exchange.error);
}

#[tokio::test]
async fn headers_without_end_are_given_up() {
    let address = serve(|mut stream, _| async move {
        read_request(&mut stream).await;
        let mut sending = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while sending.is_ok() {
            sending = stream.write_all(b"x-filler: 0123456789012345678901234567890123456789\r\n").await;
        }
    })
    .await;
    let exchange = send(&sender(), &destination(&format!("http://{address}/"))).await;
    assert_eq!(exchange.answer, Answer::Unreachable);
    assert!(exchange.error.is_some());
}

#[tokio::test]
async fn the_time_out_bounds_head_and_body() {
    let hang = serve(|mut stream, _| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let drip = serve(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await.unwrap();
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for (address, status_code) in [(hang, None), (drip, Some(200))] {
        let mut destination = destination(&format!("http://{address}/"));
        // Long enough for a head on a machine that stands still for a moment.
        destination.spec.timeout_ms = 1000;
        let exchange = send(&sender(), &destination).await;
        assert_eq!((exchange.answer, exchange.status_code), (Answer::Unreachable, status_code));
        assert_eq!(exchange.error.as_deref(), Some("timed out after 1000 ms"));
        assert!(exchange.duration >= Duration::from_millis(999), "{:?}", exchange.duration);
    }
}

#[tokio::test]
async fn a_refused_connection_names_no_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let exchange = send(&sender(), &destination(&format!("http://{address}/"))).await;
    assert_eq!((exchange.answer, exchange.error.as_deref()), (Answer::Unreachable, Some("connection refused")));
}

#[tokio::test]
async fn connections_are_kept_and_one_that_was_closed_while_idle_is_no_failure() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = serve(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            for _ in 0..3 {
                read_request(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    for _ in 0..30 {
        let exchange = send(&sender, &destination).await;
        assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{:?}", exchange.error);
        // Lets the end of the connection arrive, so that what is tested is not the race with it.
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn addresses_that_are_not_allowed_are_reached_by_no_way() {
    let source: resolver::Source = Arc::new(|name| {
        async move {
            let address = if name == "inner.example" { "10.1.2.3" } else { "1.1.1.1" };
            Ok(vec![address.parse().unwrap()])
        }
        .boxed()
    });
    let sender = Sender::with_source(settings(), source).unwrap();
    for url in [
        "https://10.1.2.3/",
        "https://0x0a010203/",
        "https://inner.example/",
        "http://outer.example/",
        "http://[::1]/",
        "https://user@outer.example/",
        "https://metadata.google.internal/",
        "nonsense",
    ] {
        let exchange = send(&sender, &destination(url)).await;
        assert_eq!(exchange.answer, Answer::EgressDenied, "{url}");
        let error = exchange.error.unwrap();
        assert!(!error.contains("10.1.2.3") && !error.contains("1.1.1.1"), "{error}");
    }
}

#[tokio::test]
async fn a_name_is_connected_to_where_the_guard_looked() {
    let address = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&asked);
    let source: resolver::Source = Arc::new(move |name| {
        names.lock().unwrap().push(name);
        async move { Ok(vec!["127.0.0.1".parse().unwrap()]) }.boxed()
    });
    let sender = Sender::with_source(settings(), source).unwrap();
    let exchange = send(&sender, &destination(&format!("http://hooks.example:{}/", address.port()))).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    assert_eq!(*asked.lock().unwrap(), ["hooks.example"]);
}

fn trusting(pem: &str) -> ExtraRoots {
    ExtraRoots::from_pem(pem.as_bytes()).unwrap()
}

/// A server with a certificate for this name; gives the certificate as PEM.
async fn serve_tls(name: &str) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = serve(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not trust us hangs up here.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                reply(&mut stream).await;
            }
        }
    })
    .await;
    (address, made.cert.pem())
}

async fn reply(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    read_request(stream).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn tls_is_checked_against_the_roots() {
    let (address, certificate) = serve_tls("localhost").await;
    let localhost = destination(&format!("https://localhost:{}/", address.port()));
    let exchange = send(&sender(), &localhost).await;
    assert_eq!(exchange.error.as_deref(), Some("TLS: the certificate's issuer is not trusted"));
    assert_eq!(exchange.answer, Answer::Unreachable);

    let trusting = Sender::new(SenderSettings { extra_roots: trusting(&certificate), ..settings() }).unwrap();
    assert_eq!(send(&trusting, &localhost).await.answer, Answer::Status { code: 200, retry_after: None });
    let by_address = destination(&format!("https://{address}/"));
    assert_eq!(send(&trusting, &by_address).await.error.as_deref(), Some("TLS: the certificate is for another name"));

    let plain = serve(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Until the client hangs up.
        let _all = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let exchange = send(&sender(), &destination(&format!("https://{plain}/"))).await;
    assert_eq!(exchange.error.as_deref(), Some("TLS: the server does not speak TLS"));
}

#[path = "proxy_tests.rs"]
mod proxy;

#[path = "pool_tests.rs"]
mod pool;
