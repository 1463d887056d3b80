//! Tenants of strangers.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use serde_json::{Value, json};
use signalpost_api::{ConnectionLimits, Settings, serve};
use signalpost_core::Clock;
use signalpost_runtime::Shutdown;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    Held,
    app::{App, Reply, answer},
    ask, tenant, text,
};

/// Registers from that address.
async fn register(router: &Router, from: &str, headers: &[(&str, &str)], body: Value) -> Reply {
    let mut request = Request::post("/v1/tenants").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_string())).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(from.parse().unwrap(), 5)));
    answer(router.clone(), request).await
}

fn open(app: &App, clock: &Arc<Held>) -> Router {
    let settings = Settings {
        open_registrations_per_hour: NonZeroU32::new(2),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    app.beside(settings, Arc::clone(clock) as Arc<dyn Clock>).router()
}

#[tokio::test]
async fn a_stranger_registers_in_one_step() {
    let app = App::start();
    let router = open(&app, &Held::new(&app));
    let body = json!({"name": "Shop", "destination": {"url": "http://127.0.0.1:9999/"}});
    let created = register(&router, "203.0.113.1", &[], body).await.expect(201);
    let event = json!({"type": "order.created", "data": {}});
    let posted = ask(&router, text(&created["key"]), "POST", "/v1/events", &[], &event).await.expect(202);
    assert_eq!(posted["deliveries"], 1);
    // The operator sees who it was.
    let log = app.get("/v1/audit-log?actor=registration").await.expect(200);
    let entry = &log["data"][0];
    assert_eq!((&entry["action"], &entry["address"]), (&json!("tenant.create"), &json!("203.0.113.1")));
    assert_eq!((&entry["status"], &entry["after"]["key"]), (&json!(201), &json!("***")));
    assert_eq!(entry["target"], created["tenant"]["id"]);
    let pointers = register(&router, "203.0.113.1", &[], json!({"name": "S", "slug": "s", "quotas": {}})).await;
    assert_eq!(pointers.problem(422, "validation_failed"), ["/slug", "/quotas"]);
}

#[tokio::test]
async fn it_takes_a_key_unless_it_is_open() {
    let app = App::start();
    let body = json!({"name": "Shop"});
    register(&app.router, "203.0.113.1", &[], body.clone()).await.problem(401, "unauthorized");
    let router = open(&app, &Held::new(&app));
    // A key that is shown is judged.
    register(&router, "203.0.113.1", &[("x-api-key", "wrong")], body.clone()).await.problem(401, "unauthorized");
    let key = tenant(&app, json!({"name": "A"})).await["key"].clone();
    register(&router, "203.0.113.1", &[("x-api-key", text(&key))], body).await.problem(403, "forbidden");
    ask(&router, "", "GET", "/v1/tenants", &[], &Value::Null).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn an_address_registers_so_often() {
    let app = App::start();
    let clock = Held::new(&app);
    let router = open(&app, &clock);
    let from = |address: &'static str, forwarded: &'static str| {
        let router = router.clone();
        async move { register(&router, address, &[("x-forwarded-for", forwarded)], json!({"name": "Shop"})).await }
    };
    for (address, forwarded) in [
        ("203.0.113.1", "198.51.100.1"),
        // What the client says of itself is nothing.
        ("203.0.113.1", "198.51.100.2"),
        ("10.0.0.1", "198.51.100.1"),
        ("10.0.0.2", "198.51.100.1"),
        ("2001:db8::1", ""),
        ("2001:db8::ffff:ffff:ffff:ffff", ""),
        ("2001:db8:0:1::1", ""),
    ] {
        from(address, forwarded).await.expect(201);
    }
    for (address, forwarded) in [("203.0.113.1", "198.51.100.3"), ("10.0.0.1", "198.51.100.1"), ("2001:db8::2", "")] {
        let refused = from(address, forwarded).await;
        assert_eq!(refused.header("retry-after"), "1800");
        refused.problem(429, "too_many_requests");
    }
    clock.advance(Duration::from_secs(1800));
    from("203.0.113.1", "").await.expect(201);
}

/// Through a real connection, whose peer is a trusted proxy.
#[tokio::test]
async fn the_address_comes_from_the_connection() {
    let app = App::start();
    let settings = Settings {
        open_registrations_per_hour: NonZeroU32::new(2),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    let router = app.beside(settings, app.clock.clone()).router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let served = tokio::spawn(serve(listener, router, ConnectionLimits::default(), shutdown.clone()));
    let body = r#"{"name":"Shop"}"#;
    let request = format!(
        "POST /v1/tenants HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: 1.1.1.1, 198.51.100.7\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    let log = app.get("/v1/audit-log?actor=registration").await.expect(200);
    assert_eq!(log["data"][0]["address"], "198.51.100.7");
    shutdown.stop();
    served.await.unwrap().unwrap();
}

/// An answer holds a key: who could guess the `Idempotency-Key` would get it.
#[tokio::test]
async fn a_repetition_of_a_stranger_is_his_own() {
    let app = App::start();
    let router = open(&app, &Held::new(&app));
    let post = |from: &'static str, key: &'static str| {
        let router = router.clone();
        async move { register(&router, from, &[("idempotency-key", key)], json!({"name": "Shop"})).await }
    };
    post("203.0.113.1", "short").await.problem(400, "bad_request");
    let key = "0b6f4c5e-7a1d-4f0e-9a51-b4d1a3f5c001";
    let first = post("203.0.113.2", key).await.expect(201);
    let again = post("203.0.113.2", key).await.expect(201);
    assert_eq!((&again["key"], &again["duplicate"]), (&first["key"], &json!(true)));
    let other = post("203.0.113.3", key).await.expect(201);
    assert_ne!(other["key"], first["key"]);
}
