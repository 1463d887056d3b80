//! Every rule of a destination's fields, one row each.

use std::{collections::BTreeSet, num::NonZeroU32};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use signalpost_core::{
    CircuitPolicy,
    destination::{BodyFormat, Method},
    retry_policy::{On4xx, RetryPolicy, Strategy},
};
use utoipa::{
    PartialSchema as _,
    openapi::{RefOr, schema::Schema},
};

use super::*;
use crate::manage::views::destination::DestinationInput;

fn draft(body: &Value) -> Result<Draft, Problem> {
    let policy = EgressPolicy::public_only();
    read(body.as_object().unwrap(), &|url| {
        if url.starts_with("gopher:") { Err("is denied".to_owned()) } else { normal_url(&policy, url) }
    })
}

/// The spec of a body that has a URL and these members.
fn spec(members: Value) -> DestinationSpec {
    let mut body = json!({"url": "https://a.example/"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    draft(&body).unwrap().spec
}

/// Where a body that has a URL and these members breaks rules.
fn pointers(members: Value) -> Vec<String> {
    let mut body = json!({"url": "https://a.example/"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let errors = draft(&body).err().map(|problem| problem.errors).unwrap_or_default();
    errors.into_iter().map(|error| error.pointer).collect()
}

fn secret(bytes: usize) -> String {
    format!("whsec_{}", STANDARD.encode(vec![7; bytes]))
}

#[test]
fn defaults() {
    let expected = DestinationSpec {
        name: String::new(),
        description: None,
        url: "https://a.example/".to_owned(),
        event_types: vec![EventPattern::everything()],
        method: Method::Post,
        header_names: std::collections::BTreeSet::new(),
        signatures: signalpost_core::signature::default_signatures(),
        body_format: BodyFormat::Standard,
        timeout_ms: 15_000,
        rate_limit: None,
        max_in_flight: NonZeroU32::new(100).unwrap(),
        retry: RetryPolicy::default(),
        circuit: CircuitPolicy::default(),
        guarantee: Guarantee::AtLeastOnce,
        ordering: Ordering {
            mode: OrderingMode::None,
            key_from: "/ordering_key".to_owned(),
            on_dead: OnDead::Continue,
        },
        disable_after: DisableAfter::default(),
        metadata: BTreeMap::new(),
    };
    assert_eq!(spec(json!({})), expected);
    let nulls = json!({
        "name": null, "description": null, "event_types": null, "method": null, "headers": null, "body_format": null,
        "timeout_ms": null, "rate_limit": null, "max_in_flight": null, "retry": null, "circuit": null, "guarantee": null, "ordering": null,
        "ordering_key_from": null, "ordering_on_dead": null, "disable_after": null, "metadata": null, "uid": null,
        "secret": null,
    });
    assert_eq!(spec(nulls), expected);
}

#[test]
fn the_url_is_required_judged_and_normalised() {
    for (body, detail) in [
        (json!({}), "is required"),
        (json!({"url": null}), "is required"),
        (json!({"url": 5}), "must be a string, not a number"),
        (json!({"url": ""}), "must have 1 to 4096 characters"),
        (json!({"url": "gopher://x"}), "is denied"),
        (
            json!({"url": format!("https://a.example/{}", "日".repeat(500))}),
            "must have at most 4096 characters once others than ASCII are encoded",
        ),
    ] {
        let problem = draft(&body).unwrap_err();
        assert_eq!(problem.errors, [crate::problem::FieldError::new("/url", detail)], "{body}");
    }
    assert_eq!(spec(json!({"url": "https://A.example/"})).url, "https://a.example/");
}

#[test]
fn bounds_are_held() {
    for (good, bad) in [
        (json!({"timeout_ms": 1000}), json!({"timeout_ms": 999})),
        (json!({"timeout_ms": 60000}), json!({"timeout_ms": 60001})),
        (json!({"timeout_ms": 2000.0}), json!({"timeout_ms": 2000.5})),
        (json!({"max_in_flight": 1}), json!({"max_in_flight": 0})),
        (json!({"max_in_flight": 10000}), json!({"max_in_flight": -1})),
        (json!({"method": "PUT"}), json!({"method": "put"})),
        (json!({"method": "PATCH"}), json!({"method": "GET"})),
        (json!({"body_format": "cloudevents"}), json!({"body_format": "xml"})),
        (json!({"name": "x".repeat(256)}), json!({"name": "x".repeat(257)})),
        (json!({"description": "ä"}), json!({"description": "a\u{0}b"})),
        (json!({"event_types": []}), json!({"event_types": "*"})),
        (json!({"guarantee": "at_most_once"}), json!({"guarantee": "exactly_once"})),
        (json!({"guarantee": "at_least_once"}), json!({"guarantee": 1})),
        (json!({"ordering": "key"}), json!({"ordering": "strict"})),
        (json!({"ordering": "none"}), json!({"ordering": true})),
        (json!({"ordering_on_dead": "block"}), json!({"ordering_on_dead": "stop"})),
        (json!({"ordering_key_from": "/data/customer/id"}), json!({"ordering_key_from": "customer"})),
        (json!({"ordering_key_from": "/labels/region"}), json!({"ordering_key_from": "/labels"})),
        (json!({"ordering_key_from": "/data"}), json!({"ordering_key_from": "/data/~2"})),
    ] {
        assert_eq!(pointers(good.clone()), Vec::<String>::new(), "{good}");
        let name = bad.as_object().unwrap().keys().next().unwrap();
        assert_eq!(pointers(bad.clone()), [format!("/{name}")], "{bad}");
    }
}

#[test]
fn patterns_and_maps_point_at_the_culprit() {
    assert_eq!(
        pointers(json!({"event_types": ["a.*", "a..b", 5, "a*"]})),
        ["/event_types/1", "/event_types/2", "/event_types/3"]
    );
    assert_eq!(pointers(json!({"metadata": {"a": 1, "b": "x\u{0}"}})), ["/metadata/a", "/metadata/b"]);
    let many: Map<String, Value> = (0..101).map(|n| (format!("k{n}"), Value::from("v"))).collect();
    assert_eq!(pointers(json!({"metadata": many})), ["/metadata"]);
    assert_eq!(pointers(json!({"headers": many})), ["/headers"]);
}

#[test]
fn headers_of_ours_and_of_the_connection_are_refused() {
    for name in [
        "Host",
        "Content-Type",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "Keep-Alive",
        "Proxy-Authorization",
        "User-Agent",
        "traceparent",
        "tracestate",
        "Webhook-Id",
        "signalpost-x",
        "bad name",
        "x:y",
        "",
        "ünï",
    ] {
        assert_eq!(pointers(json!({"headers": {name: "v"}})), [format!("/headers/{name}")], "{name}");
    }
    for value in ["a\rb", "a\nb", "a\u{0}b", "{event.data}", "{Event.id}", "x {attempts} y"] {
        assert_eq!(pointers(json!({"headers": {"X-A": value}})), ["/headers/X-A"], "{value:?}");
    }
    let all = "{event.id}{event.uid}{event.type}{delivery.id}{attempt}{timestamp}";
    let headers =
        json!({"url": "https://a.example/", "headers": {"X-A": all, "Authorization": "Bearer x", "X-Empty": ""}});
    let Draft { headers, spec, .. } = draft(&headers).unwrap();
    assert_eq!(headers["X-A"].reveal(), all);
    assert!(spec.header_names.iter().eq(headers.keys()));
    assert_eq!(headers.len(), 3);
    assert_eq!(pointers(json!({"headers": {"X-A": "1", "x-a": "2"}})), ["/headers/x-a"]);
}

#[test]
fn secrets_have_24_to_64_bytes() {
    assert_eq!(
        draft(&json!({"url": "https://a.example/", "secret": secret(24)})).unwrap().secret,
        Some(Secret::new(secret(24)))
    );
    assert_eq!(pointers(json!({"secret": secret(64)})), Vec::<String>::new());
    for bad in [secret(23), secret(65), "whsec_***".to_owned(), "plain".to_owned(), "whsk_AAAA".to_owned()] {
        assert_eq!(pointers(json!({"secret": bad})), ["/secret"], "{bad}");
    }
}

#[test]
fn a_secret_is_of_the_kind_that_its_schemes_sign_with() {
    let private = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    let hmac = json!({"scheme": "hmac", "header": "X-Sig"});
    for (schemes, given, fits) in [
        (json!([{"scheme": "standard_ed25519"}]), private.to_owned(), true),
        (json!([{"scheme": "standard_ed25519"}]), secret(32), false),
        (json!([{"scheme": "standard"}]), private.to_owned(), false),
        (json!([{"scheme": "standard"}, hmac]), secret(32), true),
        (json!([{"scheme": "standard"}, hmac]), "any text".to_owned(), false),
        (json!([hmac]), "any text".to_owned(), true),
        (json!([hmac]), "ü".repeat(256), true),
        (json!([hmac]), "x".repeat(257), false),
        (json!([hmac]), String::new(), false),
        (json!([hmac]), "a\0b".to_owned(), false),
    ] {
        let expected: &[&str] = if fits { &[] } else { &["/secret"] };
        assert_eq!(pointers(json!({"signatures": schemes, "secret": given})), expected, "{schemes} {given}");
    }
}

#[test]
fn signatures_are_read_one_by_one() {
    let hmac = |members: Value| {
        let mut scheme = json!({"scheme": "hmac", "header": "X-Sig"});
        scheme.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        json!([scheme])
    };
    let read = spec(json!({"signatures": [
        {"scheme": "standard"},
        {"scheme": "hmac", "header": "X-Hub-Signature-256", "prefix": "sha256=", "encoding": "base64", "canonical": "sorted_keys"},
        {"scheme": "hmac", "header": "x-sig", "prefix": null},
    ]}));
    let schemes = serde_json::to_value(&read.signatures).unwrap();
    assert_eq!(schemes[1]["canonical"], "sorted_keys");
    assert_eq!(schemes[2], json!({"scheme": "hmac", "header": "x-sig", "encoding": "hex", "canonical": "raw"}));
    for (bad, at) in [
        (json!([]), vec![""]),
        (json!({}), vec![""]),
        (Value::from(vec![json!({"scheme": "standard"}); 11]), vec![""]),
        (json!(["standard"]), vec!["/0"]),
        (json!([{}]), vec!["/0/scheme"]),
        (json!([{"scheme": "rsa", "header": "X-Sig"}]), vec!["/0/scheme"]),
        (json!([{"scheme": "standard", "header": "X-Sig"}]), vec!["/0/header"]),
        (json!([{"scheme": "hmac"}]), vec!["/0/header"]),
        (json!([{"scheme": "hmac", "header": "X Sig"}]), vec!["/0/header"]),
        (json!([{"scheme": "hmac", "header": "Webhook-Signature"}]), vec!["/0/header"]),
        (json!([{"scheme": "hmac", "header": "Host"}]), vec!["/0/header"]),
        (json!([{"scheme": "hmac", "header": "x".repeat(129)}]), vec!["/0/header"]),
        (hmac(json!({"prefix": "x".repeat(65)})), vec!["/0/prefix"]),
        (hmac(json!({"prefix": " x"})), vec!["/0/prefix"]),
        (hmac(json!({"prefix": "\n"})), vec!["/0/prefix"]),
        (
            hmac(json!({"encoding": "HEX", "canonical": "c14n", "key": 1})),
            vec!["/0/encoding", "/0/canonical", "/0/key"],
        ),
        (json!([{"scheme": "standard"}, {"scheme": "standard"}]), vec!["/1/scheme"]),
        (json!([{"scheme": "standard"}, {"scheme": "standard_ed25519"}]), vec!["/1/scheme"]),
        (json!([{"scheme": "hmac", "header": "X-Sig"}, {"scheme": "hmac", "header": "x-sig"}]), vec!["/1/header"]),
    ] {
        let expected: Vec<_> = at.iter().map(|at| format!("/signatures{at}")).collect();
        assert_eq!(pointers(json!({"signatures": bad})), expected, "{bad}");
    }
    let clash = json!({"signatures": hmac(json!({})), "headers": {"x-sig": "1"}});
    assert_eq!(pointers(clash), ["/signatures/0/header"]);
}

#[test]
fn credentials_are_read_by_their_type() {
    let auth = |auth: Value| draft(&json!({"url": "https://a.example/", "auth": auth})).unwrap().auth;
    let secret = Secret::new;
    for (written, read) in [
        (
            json!({"type": "basic", "username": "anna", "password": "pä:ss"}),
            Auth::Basic { username: "anna".into(), password: secret("pä:ss") },
        ),
        (json!({"type": "bearer", "token": "t0ken"}), Auth::Bearer { token: secret("t0ken") }),
        (
            json!({"type": "api_key", "header": "X-Api-Key", "value": "v{1}"}),
            Auth::ApiKey { header: "X-Api-Key".into(), value: secret("v{1}") },
        ),
    ] {
        assert_eq!(auth(written), Some(Some(read)));
    }
    assert_eq!(auth(Value::Null), Some(None));
    assert_eq!(draft(&json!({"url": "https://a.example/"})).unwrap().auth, None);
    for (bad, at) in [
        (json!("Bearer x"), vec![""]),
        (json!({}), vec!["/type"]),
        (json!({"type": "oauth2", "token": "x"}), vec!["/type"]),
        (json!({"type": "basic"}), vec!["/username", "/password"]),
        (json!({"type": "basic", "username": "a:b", "password": "a\nb"}), vec!["/username", "/password"]),
        (json!({"type": "bearer", "token": ""}), vec!["/token"]),
        (json!({"type": "bearer", "token": "a\r\nX: y"}), vec!["/token"]),
        (json!({"type": "bearer", "token": "x", "username": "y"}), vec!["/username"]),
        (json!({"type": "api_key", "header": "Host", "value": "ü"}), vec!["/header", "/value"]),
        (json!({"type": "api_key", "header": "X-Key", "value": " x"}), vec!["/value"]),
    ] {
        let expected: Vec<_> = at.iter().map(|at| format!("/auth{at}")).collect();
        assert_eq!(pointers(json!({"auth": bad})), expected, "{bad}");
    }
}

/// The settings that are given to who comes from another system.
#[test]
fn what_the_documents_say_is_taken() {
    let document = include_str!("../../../../../docs/migrating.md");
    let blocks: Vec<&str> = document.split("```json\n").skip(1).map(|text| text.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 5);
    for block in blocks {
        assert_eq!(pointers(serde_json::from_str(block).unwrap()), Vec::<String>::new(), "{block}");
    }
}

#[test]
fn uids_are_not_shaped_like_ids() {
    assert_eq!(pointers(json!({"uid": "dst_01h2e8kqvbfwea724h75qc655w"})), ["/uid"]);
    assert_eq!(pointers(json!({"uid": ""})), ["/uid"]);
    assert_eq!(pointers(json!({"uid": "billing"})), Vec::<String>::new());
}

#[test]
fn rate_limits() {
    let limit = spec(json!({"rate_limit": {"per_second": 0.001}})).rate_limit.unwrap();
    assert!((limit.burst() - 1.0).abs() < f64::EPSILON);
    assert_eq!(spec(json!({"rate_limit": {"per_second": 50, "burst": 7}})).rate_limit.unwrap().burst.unwrap().get(), 7);
    for (bad, pointer) in [
        (json!({"per_second": 0.0009}), "/rate_limit/per_second"),
        (json!({"per_second": 100_001}), "/rate_limit/per_second"),
        (json!({"burst": 5}), "/rate_limit/per_second"),
        (json!({"burst": 5, "per_second": null}), "/rate_limit/per_second"),
        (json!({"per_second": 5, "burst": 0}), "/rate_limit/burst"),
        (json!({"per_second": 5, "per_minute": 1}), "/rate_limit/per_minute"),
        (json!(5), "/rate_limit"),
    ] {
        assert_eq!(pointers(json!({"rate_limit": bad})), [pointer], "{bad}");
    }
}

#[test]
fn retry_policies_take_defaults_for_what_is_left_out() {
    let exponential = |initial_ms, factor, max_ms, max_attempts: Option<u32>| Strategy::Exponential {
        initial_ms,
        factor,
        max_ms,
        max_attempts: max_attempts.and_then(NonZeroU32::new),
    };
    for (body, expected) in [
        (json!({}), RetryPolicy::default().strategy),
        (json!({"strategy": "schedule"}), RetryPolicy::default().strategy),
        (json!({"delays_ms": []}), Strategy::Schedule { delays_ms: vec![] }),
        (
            json!({"strategy": "schedule", "delays_ms": [10, 604_800_000]}),
            Strategy::Schedule { delays_ms: vec![10, 604_800_000] },
        ),
        (json!({"strategy": "exponential"}), exponential(5000, 2.0, 86_400_000, Some(16))),
        (json!({"max_attempts": 3}), exponential(5000, 2.0, 86_400_000, Some(3))),
        (json!({"strategy": "exponential", "max_attempts": null}), exponential(5000, 2.0, 86_400_000, None)),
        (
            json!({"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100}),
            exponential(50, 1.5, 2000, Some(100)),
        ),
    ] {
        let policy = spec(json!({"retry": body})).retry;
        assert_eq!(policy.strategy, expected, "{body}");
        assert!((policy.jitter - 0.2).abs() < f64::EPSILON);
        assert_eq!(policy.on_4xx, On4xx::Auto);
    }
    assert_eq!(spec(json!({"retry": {"on_4xx": "never", "jitter": 0}})).retry.on_4xx, On4xx::Never);
}

#[test]
fn retry_policies_have_bounds() {
    for (bad, pointer) in [
        (json!({"strategy": "linear", "initial_ms": 50}), "/retry/strategy"),
        (json!({"strategy": "exponential", "initial_ms": 9}), "/retry/initial_ms"),
        (json!({"strategy": "exponential", "max_ms": 604_800_001}), "/retry/max_ms"),
        (json!({"strategy": "exponential", "factor": 0.9}), "/retry/factor"),
        (json!({"strategy": "exponential", "factor": 10.1}), "/retry/factor"),
        (json!({"strategy": "exponential", "max_attempts": 0}), "/retry/max_attempts"),
        (json!({"strategy": "exponential", "delays_ms": [10]}), "/retry/delays_ms"),
        (json!({"strategy": "schedule", "max_attempts": 5}), "/retry/max_attempts"),
        (json!({"strategy": "schedule", "delays_ms": [10, 9]}), "/retry/delays_ms/1"),
        (json!({"delays_ms": [604_800_001]}), "/retry/delays_ms/0"),
        (json!({"delays_ms": vec![10; 101]}), "/retry/delays_ms"),
        (json!({"jitter": 1.1}), "/retry/jitter"),
        (json!({"jitter": -0.1}), "/retry/jitter"),
        (json!({"on_4xx": "sometimes"}), "/retry/on_4xx"),
        (json!({"attempts": 5}), "/retry/attempts"),
    ] {
        assert_eq!(pointers(json!({"retry": bad})), [pointer], "{bad}");
    }
}

#[test]
fn a_circuit_takes_defaults_for_what_is_left_out() {
    let circuit = |members: Value| spec(json!({"circuit": members})).circuit;
    let default = CircuitPolicy::default();
    assert_eq!(circuit(json!({})), default);
    assert_eq!(circuit(json!({"enabled": false})), CircuitPolicy { enabled: false, ..default.clone() });
    let open_ms = 600_000;
    assert_eq!(
        circuit(json!({"open_ms": open_ms, "probes": null})),
        CircuitPolicy { open_ms, max_open_ms: open_ms, ..default.clone() },
        "the longest is not shorter than the first"
    );
    let all = json!({
        "enabled": true, "failures": 1000, "failure_ratio": 1, "open_ms": 100, "max_open_ms": 100, "probes": 100,
    });
    let all = circuit(all);
    assert_eq!((all.failures.get(), all.open_ms, all.max_open_ms, all.probes.get()), (1000, 100, 100, 100));
}

#[test]
fn circuits_have_bounds() {
    for (bad, pointer) in [
        (json!({"enabled": "yes"}), "/circuit/enabled"),
        (json!({"failures": 0}), "/circuit/failures"),
        (json!({"failures": 1001}), "/circuit/failures"),
        (json!({"failure_ratio": 0.009}), "/circuit/failure_ratio"),
        (json!({"failure_ratio": 1.01}), "/circuit/failure_ratio"),
        (json!({"open_ms": 99}), "/circuit/open_ms"),
        (json!({"open_ms": 3_600_001}), "/circuit/open_ms"),
        (json!({"max_open_ms": 3_600_001}), "/circuit/max_open_ms"),
        (json!({"open_ms": 5000, "max_open_ms": 4999}), "/circuit/max_open_ms"),
        (json!({"max_open_ms": 29_999}), "/circuit/max_open_ms"),
        (json!({"probes": 0}), "/circuit/probes"),
        (json!({"probes": 101}), "/circuit/probes"),
        (json!({"threshold": 5}), "/circuit/threshold"),
        (json!(true), "/circuit"),
    ] {
        assert_eq!(pointers(json!({"circuit": bad})), [pointer], "{bad}");
    }
    let body = json!({"url": "https://a.example/", "circuit": {"max_open_ms": 1000}});
    let told = &draft(&body).unwrap_err().errors[0].detail;
    assert_eq!(told, "must not be shorter than `open_ms`, which is 30000");
}

#[test]
fn giving_up_takes_defaults_and_has_bounds() {
    let after = |members: Value| {
        let DisableAfter { days, attempts } = spec(json!({"disable_after": members})).disable_after;
        (days.get(), attempts.get())
    };
    assert_eq!(after(json!({})), (5, 100));
    assert_eq!(after(json!({"days": 365})), (365, 100));
    assert_eq!(after(json!({"attempts": 1_000_000})), (5, 1_000_000));
    for (bad, pointer) in [
        (json!({"days": 0}), "/disable_after/days"),
        (json!({"days": 366}), "/disable_after/days"),
        (json!({"attempts": 0}), "/disable_after/attempts"),
        (json!({"attempts": 1_000_001}), "/disable_after/attempts"),
        (json!({"hours": 5}), "/disable_after/hours"),
        (json!(5), "/disable_after"),
    ] {
        assert_eq!(pointers(json!({"disable_after": bad})), [pointer], "{bad}");
    }
}

#[test]
fn unknown_and_read_only_fields_are_refused() {
    for name in ["nonsense", "id", "state", "disabled_reason", "created_at", "updated_at", "circuit_state"] {
        assert_eq!(pointers(json!({name: null})), [format!("/{name}")], "{name}");
    }
}

#[test]
fn what_belongs_elsewhere_is_told_where() {
    let told = |members: Value| {
        let mut body = json!({"url": "https://a.example/"});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        draft(&body).unwrap_err().errors.pop().unwrap().detail
    };
    assert!(told(json!({"state": "paused"})).contains("/v1/destinations/{id}/pause"));
    assert!(told(json!({"paused": true})).contains("/v1/destinations/{id}/pause"));
    assert!(told(json!({"retry": {"strategy": "schedule", "max_attempts": 5}})).contains("`exponential`"));
    assert!(told(json!({"retry": {"strategy": "exponential", "delays_ms": [10]}})).contains("`schedule`"));
}

#[test]
fn the_schema_lists_exactly_what_is_read() {
    let RefOr::T(Schema::Object(schema)) = DestinationInput::schema() else { panic!("not an object") };
    let described: BTreeSet<String> = schema.properties.keys().cloned().collect();
    let everything: Map<String, Value> = described.iter().map(|name| (name.clone(), Value::Null)).collect();
    let refused = read(&everything, &|_| Ok(String::new())).unwrap_err().errors;
    assert_eq!(refused, [crate::problem::FieldError::new("/url", "is required")]);
    let destination = signalpost_core::Destination {
        uid: Some("u".to_owned()),
        ..signalpost_core::Destination::new(
            "dst_01h2e8kqvbfwea724h75qc655w".parse().unwrap(),
            signalpost_core::TenantId::DEFAULT,
            spec(json!({"description": "d", "rate_limit": {"per_second": 1}})),
            signalpost_core::Kept::plain(""),
            signalpost_core::Timestamp::default(),
        )
    };
    let secrets = signalpost_core::DestinationSecrets::signing(Secret::new(secret(24)));
    let current = super::patch::document(&destination, &secrets);
    let written: BTreeSet<String> = current.keys().cloned().chain(["secret", "auth"].map(str::to_owned)).collect();
    assert_eq!(written, described);
    // What a PATCH starts from reads as what it is.
    assert!(read(&current, &|url| Ok(url.to_owned())).is_ok());
}
