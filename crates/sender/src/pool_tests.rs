//! When a connection is used again, and when it is not.

use tokio::{net::tcp::OwnedWriteHalf, sync::oneshot};

use super::*;

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A server that tells of every request by the number of its connection, and of every end of a connection; `answer` writes the response.
async fn telling<H, F>(answer: H) -> (SocketAddr, mpsc::UnboundedReceiver<usize>, mpsc::UnboundedReceiver<usize>)
where
    H: Fn(OwnedWriteHalf, usize) -> F + Clone + Send + 'static,
    F: Future<Output = OwnedWriteHalf> + Send + 'static,
{
    let ((seen, requests), (over, ends)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let address = serve(move |stream, number| {
        let (answer, seen, over) = (answer.clone(), seen.clone(), over.clone());
        async move {
            let (mut reading, mut writing) = stream.into_split();
            for request in 0.. {
                if reading.peek(&mut [0]).await.unwrap_or(0) == 0 {
                    break;
                }
                read_request(&mut reading).await;
                seen.send(number).unwrap();
                writing = answer(writing, request).await;
            }
            over.send(number).unwrap();
        }
    })
    .await;
    (address, requests, ends)
}

/// Writes the same to everybody.
fn always(
    bytes: &'static [u8],
) -> impl Fn(OwnedWriteHalf, usize) -> futures::future::BoxFuture<'static, OwnedWriteHalf> + Clone {
    move |mut writing, _| {
        async move {
            // A client that has gone is not our affair.
            let _gone = writing.write_all(bytes).await;
            writing
        }
        .boxed()
    }
}

fn ok() -> Answer {
    Answer::Status { code: 200, retry_after: None }
}

fn keeping(max_idle_per_host: usize, idle_timeout: Duration) -> Sender {
    Sender::new(SenderSettings { max_idle_per_host, idle_timeout, ..settings() }).unwrap()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("in time")
}

#[tokio::test]
async fn one_connection_carries_all_requests_of_a_host() {
    for response in [
        EMPTY,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n3\r\nyes\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (address, mut requests, _ends) = telling(always(response)).await;
        let sender = sender();
        // Two destinations, one host.
        let (first, mut other) =
            (destination(&format!("http://{address}/a")), destination(&format!("http://{address}/b?c")));
        other.id = DestinationId::from_parts(AT, [9; 10]);
        for destination in [&first, &other, &first, &other] {
            let exchange = send(&sender, destination).await;
            assert!(exchange.error.is_none(), "{exchange:?}");
            assert_eq!(requests.recv().await, Some(0));
        }
    }
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each() {
    let (held, mut holding) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
    let (address, mut requests, _ends) = telling(move |mut writing: OwnedWriteHalf, _| {
        let held = held.clone();
        async move {
            let (go, gone) = oneshot::channel();
            held.send(go).unwrap();
            gone.await.unwrap();
            writing.write_all(EMPTY).await.unwrap();
            writing
        }
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    let at_once = futures::future::join_all((0..3).map(|_| send(&sender, &destination)));
    let release = async {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(holding.recv().await.unwrap());
        }
        for go in all {
            go.send(()).unwrap();
        }
        // One more goes over one of the three.
        holding.recv().await.unwrap().send(()).unwrap();
    };
    let (exchanges, ()) = within(async {
        tokio::join!(
            async {
                let exchanges = at_once.await;
                assert_eq!(send(&sender, &destination).await.answer, ok());
                exchanges
            },
            release
        )
    })
    .await;
    assert!(exchanges.iter().all(|exchange| exchange.answer == ok()));
    let mut numbers = Vec::new();
    for _ in 0..4 {
        numbers.push(requests.recv().await.unwrap());
    }
    assert_eq!(numbers.iter().max(), Some(&2));
}

#[tokio::test]
async fn a_server_may_close_after_every_answer() {
    for response in
        [EMPTY, b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nall"]
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let address = serve(move |mut stream, _| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                read_request(&mut stream).await;
                stream.write_all(response).await.unwrap();
            }
        })
        .await;
        let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
        for turn in 1..=20 {
            let exchange = send(&sender, &destination).await;
            assert_eq!(exchange.answer, ok(), "{:?}", exchange.error);
            // Lets the end of the connection arrive, so that what is tested is not the race with it.
            for _ in 0..500 {
                tokio::task::yield_now().await;
            }
            assert_eq!(connections.load(Ordering::SeqCst), turn);
        }
    }
}

#[tokio::test]
async fn a_server_that_says_something_unasked_gets_no_request() {
    let (said, mut saying) = mpsc::unbounded_channel();
    let (address, mut requests, _ends) = telling(move |mut writing: OwnedWriteHalf, _| {
        let said = said.clone();
        async move {
            writing.write_all(EMPTY).await.unwrap();
            // As servers do that give up an idle connection.
            writing.write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            said.send(()).unwrap();
            writing
        }
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    for turn in 0..3 {
        assert_eq!(send(&sender, &destination).await.answer, ok());
        assert_eq!(requests.recv().await, Some(turn));
        saying.recv().await.unwrap();
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_within_a_request_is_a_failure_and_not_tried_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let address = serve(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            reply(&mut stream).await;
            read_request(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    assert_eq!(send(&sender, &destination).await.answer, ok());
    let exchange = send(&sender, &destination).await;
    assert_eq!(exchange.answer, Answer::Unreachable);
    assert_eq!(exchange.error.as_deref(), Some("connection closed without a response"));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_response_that_is_not_read_to_its_end_takes_its_connection_with_it() {
    // Longer than the bound, and the rest comes later or never.
    let long = || {
        let mut response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * READ_BYTES).into_bytes();
        response.resize(response.len() + 2 * READ_BYTES, b'x');
        response
    };
    let (address, mut requests, mut ends) = telling(move |mut writing: OwnedWriteHalf, _| async move {
        let _gone = writing.write_all(&long()).await;
        writing
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    for turn in 0..3 {
        let exchange = send(&sender, &destination).await;
        assert_eq!((exchange.answer, exchange.response_excerpt.len()), (ok(), KEPT_BYTES));
        assert_eq!(requests.recv().await, Some(turn));
        assert_eq!(within(ends.recv()).await, Some(turn));
    }
}

#[tokio::test]
async fn a_body_as_long_as_the_bound_is_read_to_its_end() {
    let response = || {
        let mut response = format!("HTTP/1.1 200 OK\r\ncontent-length: {READ_BYTES}\r\n\r\n").into_bytes();
        response.resize(response.len() + READ_BYTES, b'x');
        response
    };
    let (address, mut requests, _ends) = telling(move |mut writing: OwnedWriteHalf, _| async move {
        writing.write_all(&response()).await.unwrap();
        writing
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    for _ in 0..3 {
        assert_eq!(send(&sender, &destination).await.answer, ok());
        assert_eq!(requests.recv().await, Some(0));
    }
}

#[tokio::test]
async fn who_drops_a_request_closes_its_connection() {
    // The first request of a connection is answered, the second never.
    let (address, mut requests, mut ends) = telling(|mut writing: OwnedWriteHalf, request| async move {
        if request == 0 {
            writing.write_all(EMPTY).await.unwrap();
        }
        writing
    })
    .await;
    let (sender, destination) = (sender(), destination(&format!("http://{address}/")));
    for turn in 0..3 {
        assert_eq!(send(&sender, &destination).await.answer, ok());
        assert_eq!(requests.recv().await, Some(turn));
        let mut second = Box::pin(send(&sender, &destination));
        tokio::select! {
            exchange = &mut second => panic!("{exchange:?}"),
            number = requests.recv() => assert_eq!(number, Some(turn)),
        }
        drop(second);
        assert_eq!(within(ends.recv()).await, Some(turn));
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_without_traffic() {
    let (address, mut requests, mut ends) = telling(always(EMPTY)).await;
    let sender = keeping(128, Duration::from_millis(200));
    let destination = destination(&format!("http://{address}/"));
    // Twice: the sweep ends with the last idle connection, and begins again with the next.
    for turn in 0..2 {
        assert_eq!(send(&sender, &destination).await.answer, ok());
        assert_eq!(requests.recv().await, Some(turn));
        assert_eq!(within(ends.recv()).await, Some(turn));
    }
}

#[tokio::test]
async fn what_its_server_closes_is_closed_long_before_its_time() {
    let (over, mut ends) = mpsc::unbounded_channel();
    let address = serve(move |mut stream, _| {
        let over = over.clone();
        async move {
            reply(&mut stream).await;
            stream.shutdown().await.unwrap();
            over.send(stream.read(&mut [0]).await.unwrap()).unwrap();
        }
    })
    .await;
    // Swept every two seconds; over after six, at the earliest.
    let sender = keeping(128, Duration::from_secs(8));
    assert_eq!(send(&sender, &destination(&format!("http://{address}/"))).await.answer, ok());
    assert_eq!(tokio::time::timeout(Duration::from_millis(5500), ends.recv()).await, Ok(Some(0)));
}

#[tokio::test]
async fn a_connection_that_is_used_is_not_idle() {
    let (address, mut requests, _ends) = telling(always(EMPTY)).await;
    let (clock, idle_timeout) = (SystemClock::new(), Duration::from_secs(2));
    let sender = keeping(128, idle_timeout);
    let destination = destination(&format!("http://{address}/"));
    // For longer than it may be idle; how often does not matter.
    while clock.elapsed() < idle_timeout + idle_timeout / 4 {
        assert_eq!(send(&sender, &destination).await.answer, ok());
        assert_eq!(requests.recv().await, Some(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_are_allowed() {
    let (address, mut requests, mut ends) = telling(always(EMPTY)).await;
    let sender = keeping(2, Duration::from_secs(50));
    let (here, there) =
        (destination(&format!("http://{address}/")), destination(&format!("http://localhost:{}/", address.port())));
    let exchanges = futures::future::join_all((0..5).map(|_| send(&sender, &here))).await;
    assert!(exchanges.iter().all(|exchange| exchange.answer == ok()));
    for _ in 0..3 {
        within(ends.recv()).await.unwrap();
    }
    // Another host has places of its own.
    assert_eq!(send(&sender, &there).await.answer, ok());
    for _ in 0..6 {
        requests.recv().await.unwrap();
    }
    for destination in [&here, &there, &here, &there] {
        assert_eq!(send(&sender, destination).await.answer, ok());
        assert!(requests.recv().await.unwrap() <= 5, "a new connection");
    }
    assert!(ends.try_recv().is_err(), "one too many was closed");
}

#[tokio::test]
async fn all_hosts_together_keep_no_more_than_are_allowed() {
    let (address, mut requests, mut ends) = telling(always(EMPTY)).await;
    let sender = Sender::new(SenderSettings { max_idle: 1, ..settings() }).unwrap();
    let (here, there) =
        (destination(&format!("http://{address}/")), destination(&format!("http://localhost:{}/", address.port())));
    let mut there = Destination { id: DestinationId::from_parts(AT, [9; 10]), ..there };
    for turn in 1..=3 {
        assert_eq!(send(&sender, &here).await.answer, ok());
        assert_eq!(requests.recv().await, Some(0), "the place is taken, and is its own");
        assert_eq!(send(&sender, &there).await.answer, ok());
        assert_eq!(requests.recv().await, Some(turn));
        assert_eq!(within(ends.recv()).await, Some(turn));
    }
    // While it is used it has none.
    there.spec.url = here.spec.url.clone();
    let exchanges = futures::future::join_all([send(&sender, &here), send(&sender, &there)]).await;
    assert!(exchanges.iter().all(|exchange| exchange.answer == ok()));
    within(ends.recv()).await.unwrap();
    assert!(ends.try_recv().is_err(), "one of two is kept");
}

#[tokio::test]
async fn connections_go_with_their_sender() {
    let (address, _requests, mut ends) = telling(always(EMPTY)).await;
    let sender = sender();
    assert_eq!(send(&sender, &destination(&format!("http://{address}/"))).await.answer, ok());
    drop(sender);
    assert_eq!(within(ends.recv()).await, Some(0));
}

#[tokio::test]
async fn one_deadline_bounds_connecting_head_and_body() {
    // Speaks no TLS: the connection is there, the handshake never ends.
    let (mute, _requests, _ends) = telling(always(b"")).await;
    let silent = serve(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let (half, _requests, mut ends) = telling(always(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")).await;
    let sender = sender();
    for (url, status_code, excerpt) in [
        (format!("https://{silent}/"), None, &b""[..]),
        (format!("http://{mute}/"), None, b""),
        (format!("http://{half}/"), Some(200), b"half"),
    ] {
        let mut destination = destination(&url);
        // Long enough for a head on a machine that stands still for a moment.
        destination.spec.timeout_ms = 1000;
        let exchange = within(send(&sender, &destination)).await;
        assert_eq!(exchange.error.as_deref(), Some("timed out after 1000 ms"), "{url}");
        assert_eq!((exchange.status_code, &exchange.response_excerpt[..]), (status_code, excerpt), "{url}");
        assert_eq!(exchange.answer, Answer::Unreachable);
    }
    // And what timed out is not used again.
    assert_eq!(within(ends.recv()).await, Some(0));
}

#[tokio::test]
async fn tls_connections_are_used_again_and_closed_as_tls_wants_it() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (over, mut ends) = mpsc::unbounded_channel();
    let address = serve(move |stream, number| {
        let (acceptor, over) = (acceptor.clone(), over.clone());
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            for _ in 0..3 {
                reply(&mut stream).await;
            }
            // An error where the client goes without a word.
            over.send((number, stream.read(&mut [0]).await.ok())).unwrap();
        }
    })
    .await;
    let trusted = SenderSettings { extra_roots: trusting(&made.cert.pem()), ..settings() };
    let sender = Sender::new(SenderSettings { idle_timeout: Duration::from_secs(1), ..trusted }).unwrap();
    let destination = destination(&format!("https://localhost:{}/", address.port()));
    for _ in 0..3 {
        assert_eq!(send(&sender, &destination).await.answer, ok());
    }
    assert_eq!(within(ends.recv()).await, Some((0, Some(0))));
}
