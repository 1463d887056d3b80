//! Through a proxy that really tunnels: to whatever stands at the end, whichever address it was asked for.

use tokio::net::TcpSocket;

use super::*;

/// How the proxy answers `CONNECT`.
#[derive(Clone, Copy)]
enum Manner {
    /// With a tunnel to this server.
    TunnelTo(SocketAddr),
    /// With this status.
    Answer(u16),
    /// Not at all: it hangs up.
    HangUp,
    /// Not at all: it waits.
    Wait,
}

/// A proxy; gives its address and the heads of the requests that it got.
async fn proxy(manner: Manner) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (seen, heads) = mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            seen.send(String::from_utf8(head).unwrap()).unwrap();
            match manner {
                Manner::TunnelTo(to) => {
                    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                    let mut inner = TcpStream::connect(to).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
                }
                Manner::Answer(code) => {
                    let head = format!("HTTP/1.1 {code} No\r\ncontent-length: 8\r\n\r\n10.0.0.9");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
                Manner::HangUp => {}
                Manner::Wait => std::future::pending().await,
            }
        }
    })
    .await;
    (address, heads)
}

/// Every name has these addresses.
fn resolving_to(addresses: &'static [&'static str]) -> resolver::Source {
    Arc::new(move |_| async move { Ok(addresses.iter().map(|text| text.parse().unwrap()).collect()) }.boxed())
}

fn through(proxy: SocketAddr, settings: SenderSettings, source: resolver::Source) -> Sender {
    let proxy = EgressProxy::parse(&format!("http://joe:s3cret@{proxy}")).unwrap();
    Sender::with_source(SenderSettings { proxy: Some(proxy), ..settings }, source).unwrap()
}

fn everything_over_http() -> SenderSettings {
    let egress = EgressPolicy { require_https: false, ..settings().egress };
    SenderSettings { egress, ..settings() }
}

#[tokio::test]
async fn the_proxy_is_asked_for_the_address_and_tls_for_the_name() {
    let (server, certificate) = serve_tls("hooks.example").await;
    let (address, mut heads) = proxy(Manner::TunnelTo(server)).await;
    let trusted = SenderSettings { extra_roots: trusting(&certificate), ..settings() };
    let sender = through(address, trusted, resolving_to(&["1.1.1.1"]));
    // The certificate is checked against the name, so this also shows that the name was asked for within TLS.
    let exchange = send(&sender, &destination("https://hooks.example/a")).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{:?}", exchange.error);
    let head = heads.recv().await.unwrap();
    let pair = "am9lOnMzY3JldA=="; // joe:s3cret
    let expected =
        format!("CONNECT 1.1.1.1:443 HTTP/1.1\r\nHost: 1.1.1.1:443\r\nProxy-Authorization: Basic {pair}\r\n\r\n");
    assert_eq!(head, expected);
    let exchange = send(&sender, &destination("https://other.example/a")).await;
    assert_eq!(exchange.error.as_deref(), Some("TLS: the certificate is for another name"));
}

#[tokio::test]
async fn http_goes_through_a_tunnel_too() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let server = serve(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            seen.send(read_request(&mut stream).await.0).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let (address, mut heads) = proxy(Manner::TunnelTo(server)).await;
    let sender = through(address, everything_over_http(), resolving_to(&["2606:4700::1111"]));
    let exchange = send(&sender, &destination("http://hooks.example:8080/a?b")).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{:?}", exchange.error);
    assert!(heads.recv().await.unwrap().starts_with("CONNECT [2606:4700::1111]:8080 HTTP/1.1\r\n"));
    let head = requests.recv().await.unwrap();
    assert!(head.starts_with("put /a?b http/1.1") || head.starts_with("post /a?b http/1.1"), "{head}");
    assert!(head.contains("\r\nhost: hooks.example:8080"), "{head}");
    assert!(!head.contains("proxy-"), "{head}");
}

#[tokio::test]
async fn the_guard_stands_before_the_proxy() {
    let server = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (address, mut heads) = proxy(Manner::TunnelTo(server)).await;
    let sender = through(address, everything_over_http(), resolving_to(&["1.1.1.1", "10.0.0.1"]));
    for url in ["https://mixed.example/", "http://mixed.example/", "https://10.0.0.1/", "http://[fd00::1]/"] {
        let exchange = send(&sender, &destination(url)).await;
        assert_eq!(exchange.answer, Answer::EgressDenied, "{url}");
        assert!(!exchange.error.unwrap().contains("10.0.0.1"));
    }
    assert!(heads.try_recv().is_err(), "the proxy was asked");
    // What the operator named is his own network: no proxy.
    let exchange = send(&sender, &destination(&format!("http://{server}/"))).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    let exchange = send(&sender, &destination(&format!("http://localhost:{}/", server.port()))).await;
    assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None });
    assert!(heads.try_recv().is_err(), "the proxy was asked");
}

#[tokio::test]
async fn a_proxy_that_does_not_serve_is_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    for (address, error) in [
        (proxy(Manner::Answer(407)).await.0, "the egress proxy refused the connection"),
        (proxy(Manner::Answer(403)).await.0, "the egress proxy refused the connection"),
        (proxy(Manner::Answer(502)).await.0, "the egress proxy refused the connection"),
        (proxy(Manner::HangUp).await.0, "the egress proxy refused the connection"),
        (nobody, "the egress proxy cannot be reached"),
    ] {
        let sender = through(address, settings(), resolving_to(&["1.1.1.1"]));
        let exchange = send(&sender, &destination("https://hooks.example/")).await;
        assert_eq!((exchange.answer, exchange.error.as_deref()), (Answer::Unreachable, Some(error)));
        // What the proxy says is not the destination's answer.
        assert_eq!((exchange.status_code, exchange.response_excerpt.len()), (None, 0));
    }
}

#[tokio::test]
async fn the_time_out_bounds_the_proxy_too() {
    let (address, _heads) = proxy(Manner::Wait).await;
    let sender = through(address, settings(), resolving_to(&["1.1.1.1", "8.8.8.8"]));
    let mut destination = destination("https://hooks.example/");
    destination.spec.timeout_ms = 100;
    let exchange = send(&sender, &destination).await;
    assert_eq!(exchange.error.as_deref(), Some("timed out after 100 ms"));
}

#[tokio::test]
async fn an_address_that_the_proxy_refuses_is_not_the_last_one() {
    let (address, mut heads) = proxy(Manner::Answer(502)).await;
    let sender = through(address, settings(), resolving_to(&["1.1.1.1", "8.8.8.8"]));
    send(&sender, &destination("https://hooks.example/")).await;
    for asked in ["1.1.1.1", "8.8.8.8"] {
        assert!(heads.recv().await.unwrap().starts_with(&format!("CONNECT {asked}:443 ")));
    }
}

#[tokio::test]
async fn nor_is_one_that_it_does_not_get_through_to() {
    let (address, mut heads) = proxy(Manner::Wait).await;
    let hurried = SenderSettings { connect_timeout: Duration::from_millis(400), ..settings() };
    let sender = through(address, hurried, resolving_to(&["1.1.1.1", "8.8.8.8"]));
    let exchange = send(&sender, &destination("https://hooks.example/")).await;
    assert_eq!(exchange.error.as_deref(), Some("connection timed out"));
    for asked in ["1.1.1.1", "8.8.8.8"] {
        assert!(heads.recv().await.unwrap().starts_with(&format!("CONNECT {asked}:443 ")));
    }
}

/// A place at this address that answers no connection: as many as may be waiting there are.
async fn swallowing(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn an_address_that_swallows_everything_is_not_the_last_one() {
    let server = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let _swallowing = swallowing(SocketAddr::from(([127, 0, 0, 2], server.port()))).await;
    let (nobody, _heads) = proxy(Manner::Wait).await;
    let hurried = || SenderSettings { connect_timeout: Duration::from_millis(400), ..settings() };
    let source = || resolving_to(&["127.0.0.2", "127.0.0.1"]);
    let destination = destination(&format!("http://hooks.example:{}/", server.port()));
    // Directly, and beside a proxy.
    for sender in [Sender::with_source(hurried(), source()).unwrap(), through(nobody, hurried(), source())] {
        let exchange = send(&sender, &destination).await;
        assert_eq!(exchange.answer, Answer::Status { code: 200, retry_after: None }, "{:?}", exchange.error);
    }
}
