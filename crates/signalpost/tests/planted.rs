//! Secrets are planted in every place that takes one; then everything that comes out is searched for them: answers of all routes,
//! problems, logs at their most talkative, metrics, commands, and the files of the database.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap};
use reqwest::Method;
use serde_json::{Value, json};
use signalpost_testkit::{eventually, services::free_port};
use support::{Dev, LONG, run};

const OPERATOR: &str = "planted-operator-key-7f3a9c";
const OLD_OPERATOR: &str = "planted-older-operator-key-11d0";
/// 32 bytes each.
const NEW_KEY: &str = "planted-key-new-0123456789abcdef";
const OLD_KEY: &str = "planted-key-old-0123456789abcdef";
const BASIC: (&str, &str) = ("planted-username", "planted-basic-pass-c41e");
const BEARER: &str = "planted-bearer-token-90ab";
const API_KEY: &str = "planted-api-key-value-5d2f";
const HEADER: &str = "planted-header-value-b86c";
const LATER_HEADER: &str = "planted-later-header-value-2a71";
const HMAC: &str = "planted-hmac-secret-e9f0";
const WRONG: &str = "planted-wrong-api-key-3c3c";
const REFUSED: &str = "planted-refused-value-4b4b";
/// Shown where they may be: each must be found, or the search finds nothing at all.
const CONTROL_TYPE: &str = "control.visible.type";

/// Base64, the standard alphabet, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().chain([&0, &0]).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        (0..4).map(move |at| if at <= chunk.len() { DIGITS[bits >> (18 - 6 * at) & 63] as char } else { '=' })
    });
    digits.collect()
}

fn whsec(bytes: &[u8]) -> String {
    format!("whsec_{}", base64(bytes))
}

/// What must be found nowhere, in all forms.
#[derive(Default)]
struct Planted(Vec<(String, Vec<u8>)>);

impl Planted {
    fn text(&mut self, what: &str, text: &str) {
        self.0.push((what.to_owned(), text.as_bytes().to_vec()));
        self.0.push((format!("{what}, in base64"), base64(text.as_bytes()).trim_end_matches('=').as_bytes().to_vec()));
    }

    /// A secret with a prefix before base64: that text, and the bytes.
    fn encoded(&mut self, what: &str, bytes: &[u8]) {
        self.text(what, std::str::from_utf8(bytes).unwrap());
    }

    /// Those that this holds.
    fn in_bytes(&self, bytes: &[u8]) -> Vec<&str> {
        let held = self.0.iter().filter(|(_, needle)| holds(bytes, needle));
        held.map(|(what, _)| what.as_str()).collect()
    }
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// What came out, by where.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn holds(&self, needle: &str) -> bool {
        self.0.iter().any(|(_, bytes)| holds(bytes, needle.as_bytes()))
    }
}

/// A person at the API, whose answers are all kept for the search.
struct Api {
    http: reqwest::Client,
    url: String,
    seen: Seen,
}

impl Api {
    /// Sends it. `shown`: members of the answer that the contract shows a secret in; they are not searched.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
        shown: &[&str],
    ) -> (u16, Value) {
        let place = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        self.seen.add(format!("headers of {place}"), format!("{:?}", answer.headers()));
        let bytes = answer.bytes().await.unwrap();
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
            self.seen.add(place, bytes);
            return (status, Value::Null);
        };
        let mut kept = value.clone();
        for pointer in shown {
            *kept.pointer_mut(pointer).unwrap_or_else(|| panic!("{place} has no {pointer}: {value}")) = json!("shown");
        }
        self.seen.add(place, if shown.is_empty() { bytes.to_vec() } else { kept.to_string().into_bytes() });
        (status, value)
    }

    /// With the operator's key; must succeed.
    async fn operate(&mut self, method: Method, path: &str, body: Option<Value>, shown: &[&str]) -> Value {
        let key = format!("Bearer {OPERATOR}");
        let (status, answer) = self.ask(method.clone(), path, body, &[("authorization", &key)], shown).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

type Requests = Arc<Mutex<Vec<String>>>;

/// Answers with all headers of the request, as some receivers do; where the path says so, with 500.
async fn echo(
    State(requests): State<Requests>,
    uri: axum::http::Uri,
    headers: HeaderMap,
) -> (http::StatusCode, String) {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    let text = lines.collect::<String>();
    requests.lock().unwrap().push(text.clone());
    let status = if uri.path() == "/fails" { http::StatusCode::INTERNAL_SERVER_ERROR } else { http::StatusCode::OK };
    (status, text)
}

async fn echoing() -> (String, Requests) {
    let requests = Requests::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(echo).with_state(Arc::clone(&requests));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, requests)
}

fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_else(|| panic!("no id in {answer}")).to_owned()
}

/// Every GET route of the document, with the ids that there are; those that need another kind of id are an error.
async fn walk(api: &mut Api, ids: &BTreeMap<&str, String>, tenant: &str) {
    let key = format!("Bearer {OPERATOR}");
    let headers = [("authorization", key.as_str()), ("signalpost-tenant", tenant)];
    let (_, document) = api.ask(Method::GET, "/openapi.json", None, &headers, &[]).await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, operations) in paths {
        if operations.get("get").is_none() {
            continue;
        }
        let mut filled = path.clone();
        if let Some((before, _)) = path.split_once('{') {
            let kind = before.trim_start_matches("/v1/").trim_end_matches('/');
            let id = ids.get(kind).unwrap_or_else(|| panic!("no id for {path}"));
            let (_, after) = path.split_once('}').unwrap();
            filled = format!("{before}{id}{after}");
        }
        let shown: &[&str] = if path.ends_with("/secret") { &["/secret"] } else { &[] };
        let (status, answer) = api.ask(Method::GET, &filled, None, &headers, shown).await;
        assert!(status == 200, "GET {filled}: {status} {answer}");
    }
}

/// Requests that are refused, each with something secret in it.
async fn refusals(api: &mut Api, destination: &str) {
    let key = format!("Bearer {OPERATOR}");
    let operator = [("authorization", key.as_str())];
    let url = "http://127.0.0.1:9999/";
    let created = |members: Value| {
        let mut body = json!({"name": "refused", "url": url});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    for body in [
        created(json!({"secret": REFUSED})),
        created(json!({"secret": {"a": REFUSED}})),
        created(json!({"url": format!("http://anna:{REFUSED}@127.0.0.1/")})),
        created(json!({"headers": {"Host": REFUSED}})),
        created(json!({"headers": {"X-A": format!("{REFUSED}\r\n")}})),
        created(json!({"headers": {"X-A": format!("{{{REFUSED}}}")}})),
        created(json!({"headers": {"X-A": [REFUSED]}})),
        created(json!({"auth": {"type": "basic", "username": format!("a:{REFUSED}"), "password": REFUSED}})),
        created(json!({"auth": {"type": "bearer", "token": format!("{REFUSED}\n")}})),
        created(json!({"auth": {"type": "api_key", "header": "a b", "value": REFUSED}})),
        created(json!({"auth": REFUSED})),
        created(json!({"auth": {"type": REFUSED}})),
    ] {
        let (status, answer) = api.ask(Method::POST, "/v1/destinations", Some(body.clone()), &operator, &[]).await;
        assert_eq!(status, 422, "{body}: {answer}");
    }
    let path = format!("/v1/destinations/{destination}");
    let patches = [
        (Method::PATCH, path.clone(), json!({"secret": REFUSED})),
        (Method::POST, format!("{path}/secret/rotate"), json!({"secret": [REFUSED]})),
        (
            Method::POST,
            "/v1/tenants".to_owned(),
            json!({"name": "a", "ingest_signature": {"scheme": "standard", "secret": REFUSED}}),
        ),
    ];
    for (method, path, body) in patches {
        let (status, answer) = api.ask(method, &path, Some(body), &operator, &[]).await;
        assert_eq!(status, 422, "{path}: {answer}");
    }
    for headers in [[("authorization", format!("Bearer {WRONG}"))], [("x-api-key", WRONG.to_owned())]] {
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(api.ask(Method::GET, "/v1/destinations", None, &headers, &[]).await.0, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::too_many_lines, reason = "one story: what is planted, and where it is looked for")]
async fn planted_secrets_are_found_nowhere() {
    let signing = [b"planted-signing-secret-1", b"planted-signing-secret-2", b"planted-signing-secret-3"];
    let ingest = b"planted-ingest-secret-01";
    let mut planted = Planted::default();
    for (what, text) in [
        ("the operator's key", OPERATOR),
        ("the operator's older key", OLD_OPERATOR),
        ("the newest encryption key", NEW_KEY),
        ("an older encryption key", OLD_KEY),
        ("a password", BASIC.1),
        ("credentials", &format!("{}:{}", BASIC.0, BASIC.1)),
        ("a bearer token", BEARER),
        ("an API key", API_KEY),
        ("a header", HEADER),
        ("a later header", LATER_HEADER),
        ("an hmac secret", HMAC),
        ("a wrong key", WRONG),
        ("a refused value", REFUSED),
    ] {
        planted.text(what, text);
    }
    for bytes in signing.iter().chain([&ingest]) {
        planted.encoded("a signing secret", *bytes);
    }

    let (receiver, requests) = echoing().await;
    let keys = format!("new:{},old:{}", base64(NEW_KEY.as_bytes()), base64(OLD_KEY.as_bytes()));
    let mut dev = Dev::standalone_with(&[
        ("SIGNALPOST_ADMIN_KEY", &format!("{OPERATOR},{OLD_OPERATOR}")),
        ("SIGNALPOST_ENCRYPTION_KEYS", &keys),
        ("SIGNALPOST_LOG", "trace"),
    ]);
    let _sets_up_tls = signalpost_testkit::Client::new(&dev.url(), OPERATOR);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut api = Api { http, url: dev.url(), seen: Seen::default() };

    // A tenant, its key, its first destination, its producers' secret; twice, as a key says.
    let tenant = json!({
        "name": "Planted", "slug": "planted",
        "ingest_signature": {"scheme": "standard", "secret": whsec(ingest)},
        "destination": {"name": "first", "url": format!("{receiver}/ok"), "secret": whsec(signing[0]), "headers": {"X-Planted": HEADER}},
    });
    let bearer = format!("Bearer {OPERATOR}");
    let once = [("authorization", bearer.as_str()), ("idempotency-key", "one-tenant")];
    let mut tenant_key = String::new();
    for _ in 0..2 {
        let shown = ["/key", "/destination/secret"];
        let (status, answer) = api.ask(Method::POST, "/v1/tenants", Some(tenant.clone()), &once, &shown).await;
        assert_eq!(status, 201, "{answer}");
        tenant_key = answer["key"].as_str().unwrap().to_owned();
    }
    planted.text("a tenant's key", &tenant_key);

    // One destination of each kind of credentials.
    let mut destinations = Vec::new();
    for further in [
        json!({"secret": whsec(signing[1]), "headers": {"X-Planted": HEADER}, "url": format!("{receiver}/ok"),
               "auth": {"type": "basic", "username": BASIC.0, "password": BASIC.1}}),
        json!({"auth": {"type": "bearer", "token": BEARER}, "url": format!("{receiver}/fails"),
               "headers": {"X-Planted": HEADER}, "retry": {"strategy": "exponential", "max_attempts": 1}}),
        json!({"auth": {"type": "api_key", "header": "X-Own-Key", "value": API_KEY}, "url": format!("{receiver}/ok")}),
        json!({"secret": HMAC, "url": format!("{receiver}/ok"),
               "signatures": [{"scheme": "hmac", "header": "X-Sig", "prefix": "", "encoding": "hex", "canonical": "raw"}]}),
    ] {
        let mut body = json!({"name": "planted", "description": CONTROL_TYPE});
        body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        destinations.push(id(&api.operate(Method::POST, "/v1/destinations", Some(body), &["/secret"]).await));
    }
    let first = format!("/v1/destinations/{}", destinations[0]);
    let patch = json!({"headers": {"X-Later": LATER_HEADER}});
    api.operate(Method::PATCH, &first, Some(patch), &[]).await;
    let rotated = json!({"secret": whsec(signing[2]), "overlap_seconds": 600});
    api.operate(Method::POST, &format!("{first}/secret/rotate"), Some(rotated), &["/secret"]).await;
    for destination in &destinations {
        api.operate(Method::POST, &format!("/v1/destinations/{destination}/test"), None, &[]).await;
    }
    refusals(&mut api, &destinations[0]).await;

    // Events: of the operator, and signed ones of the tenant, by `signalpost send`.
    let event = json!({"type": CONTROL_TYPE, "data": {"order": 1}});
    let event = id(&api.operate(Method::POST, "/v1/events", Some(event), &[]).await);
    let (url, ingest) = (dev.url(), whsec(ingest));
    let env =
        [("SIGNALPOST_URL", url.as_str()), ("SIGNALPOST_API_KEY", &tenant_key), ("SIGNALPOST_SIGN_SECRET", &ingest)];
    let sent = run(&["send"], &env, b"{\"type\":\"a.b\",\"data\":1}\n");
    assert!(sent.status.success(), "{}", support::stderr(&sent));
    api.seen.add("signalpost send", [sent.stdout, sent.stderr].concat());
    let unsigned = [("x-api-key", tenant_key.as_str())];
    let (status, _) =
        api.ask(Method::POST, "/v1/events", Some(json!({"type": "a.b", "data": 1})), &unsigned, &[]).await;
    assert_eq!(status, 403);

    let client = signalpost_testkit::Client::new(&dev.url(), OPERATOR);
    let letter = eventually("the failing destination has its dead letter", LONG, || async {
        let letters = client.get("/v1/dead-letters").await.map_err(|error| error.to_string())?;
        letters["data"].as_array().and_then(|all| all.first()).map(id).ok_or(letters.to_string())
    })
    .await;
    eventually("all are attempted", LONG, || async {
        let attempts = client.get(&format!("/v1/events/{event}/attempts")).await.map_err(|error| error.to_string())?;
        if attempts["data"].as_array().map(Vec::len) == Some(4) { Ok(()) } else { Err(attempts.to_string()) }
    })
    .await;
    let replay = json!({"destination_id": destinations[0]});
    let replay = id(&api.operate(Method::POST, "/v1/replays", Some(replay), &[]).await);

    let tenants = api.operate(Method::GET, "/v1/tenants?limit=250", None, &[]).await;
    let tenant = tenants["data"].as_array().unwrap().iter().find(|tenant| tenant["slug"] == "planted").map(id).unwrap();
    let ids = [
        ("events", event),
        ("deliveries", letter.clone()),
        ("dead-letters", letter),
        ("destinations", destinations[0].clone()),
        ("replays", replay),
        ("tenants", tenant),
    ];
    walk(&mut api, &ids.into(), "default").await;
    for path in ["/v1/destinations", "/v1/audit-log", "/v1/attempts?include=data", "/v1/events?include=data&limit=20"] {
        let headers = [("authorization", bearer.as_str()), ("signalpost-tenant", "planted")];
        api.ask(Method::GET, path, None, &headers, &[]).await;
    }
    for path in ["/", "/docs", "/nowhere", "/health/ready", "/problems/unauthorized"] {
        api.ask(Method::GET, path, None, &[], &[]).await;
    }

    let mut seen = api.seen;
    files(&dev, &mut seen, "while it runs");
    assert!(dev.process.stop(LONG).unwrap().success());
    files(&dev, &mut seen, "after its end");
    let text = dev.data_dir();
    let doctor = ["doctor", "--listen", "127.0.0.1:0", "--data-dir", text.to_str().unwrap()];
    let doctor = run(&doctor, &[("SIGNALPOST_ENCRYPTION_KEYS", &keys), ("SIGNALPOST_ADMIN_KEY", OPERATOR)], b"");
    seen.add("signalpost doctor", [doctor.stdout, doctor.stderr].concat());

    // They were in use, and what may be seen is.
    let sent = requests.lock().unwrap().concat();
    let basic = base64(format!("{}:{}", BASIC.0, BASIC.1).as_bytes());
    for used in [HEADER, LATER_HEADER, BEARER, API_KEY, &basic] {
        assert!(sent.contains(used), "{used} was never sent");
    }
    assert!(!planted.in_bytes(sent.as_bytes()).is_empty(), "the search finds what is there");
    assert!(seen.holds("user-agent: Signalpost/"), "what the receiver echoed is in an answer");
    for (place, control) in [
        ("answer", CONTROL_TYPE),
        ("signalpost.db", CONTROL_TYPE),
        ("the log", " is ready at "),
        ("the log", "\"TRACE\""),
        ("GET /metrics", "signalpost_events_received_total"),
        ("signalpost doctor", "all are encrypted with new"),
    ] {
        let there = seen.0.iter().filter(|(at, _)| place == "answer" || at.contains(place));
        let found = there.clone().any(|(_, bytes)| holds(bytes, control.as_bytes()));
        assert!(found, "{control} is not in {place}: {:?}", there.map(|(at, _)| at).collect::<Vec<_>>());
    }

    let mut found = Vec::new();
    for (place, bytes) in &seen.0 {
        let held = planted.in_bytes(bytes);
        if !held.is_empty() {
            found.push(format!("{}: {}", held.join(", "), around(place, bytes, &planted)));
        }
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

/// The place, with the line in which the first secret stands.
fn around(place: &str, bytes: &[u8], planted: &Planted) -> String {
    let line = bytes.split(|byte| *byte == b'\n').find(|line| !planted.in_bytes(line).is_empty());
    let line = line.map(|line| String::from_utf8_lossy(&line[..line.len().min(600)]).into_owned());
    format!("{place}: {}", line.unwrap_or_default())
}

/// The log, and every file of the data directory but the operator's own keys.
fn files(dev: &Dev, seen: &mut Seen, when: &str) {
    seen.add(format!("the log {when}"), dev.said());
    let mut names = Vec::new();
    for entry in fs::read_dir(dev.data_dir()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "keys.toml" {
            seen.add(format!("{name} {when}"), fs::read(entry.path()).unwrap());
            names.push(name);
        }
    }
    assert!(names.iter().any(|name| name == "signalpost.db"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_proxy_is_found_nowhere() {
    const PASSWORD: &str = "planted-proxy-password-6e6e";
    let mut planted = Planted::default();
    planted.text("the proxy's password", PASSWORD);
    planted.text("the proxy's credentials", &format!("anna:{PASSWORD}"));
    let proxy = format!("http://anna:{PASSWORD}@127.0.0.1:{}", free_port().unwrap());
    let mut dev = Dev::standalone_with(&[("SIGNALPOST_EGRESS_PROXY", &proxy), ("SIGNALPOST_LOG", "trace")]);
    let client = dev.client();
    let retry = json!({"retry": {"strategy": "exponential", "max_attempts": 1}});
    client.create_destination("https://127.0.0.1:9443/", retry).await.unwrap();
    client.post("/v1/events", &json!({"type": CONTROL_TYPE, "data": 1})).await.unwrap();
    let attempt = eventually("it is tried", LONG, || async {
        let attempts = client.get("/v1/attempts").await.map_err(|error| error.to_string())?;
        attempts["data"].as_array().and_then(|all| all.first()).cloned().ok_or(attempts.to_string())
    })
    .await;
    assert_ne!(attempt["outcome"], "delivered");
    let mut seen = Seen::default();
    seen.add("attempt", attempt.to_string());
    assert!(dev.process.stop(LONG).unwrap().success());
    files(&dev, &mut seen, "after its end");
    for (place, bytes) in &seen.0 {
        assert_eq!(planted.in_bytes(bytes), Vec::<&str>::new(), "{}", around(place, bytes, &planted));
    }
}

#[test]
fn a_setting_that_is_refused_is_not_repeated_where_it_is_secret() {
    let planted = "planted-in-a-setting-8d8d";
    for (name, value) in [
        ("SIGNALPOST_ADMIN_KEY", format!("{planted}\u{e9}")),
        ("SIGNALPOST_ENCRYPTION_KEYS", format!("{planted}:{planted}")),
        ("SIGNALPOST_DATABASE_URL", format!("mysql://anna:{planted}@127.0.0.1/db")),
        ("SIGNALPOST_REDIS_URL", format!("http://anna:{planted}@127.0.0.1/")),
        ("SIGNALPOST_EGRESS_PROXY", format!("socks5://anna:{planted}@127.0.0.1:1080")),
    ] {
        let output = run(&["standalone", "--listen", "127.0.0.1:0"], &[(name, &value)], b"");
        assert_eq!(output.status.code(), Some(2), "{name}: {}", support::stderr(&output));
        let said = [support::stdout(&output), support::stderr(&output)].concat();
        assert!(said.contains(name), "{said}");
        assert!(!said.contains(planted), "{said}");
    }
}
