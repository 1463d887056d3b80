//! What is remembered of a destination, and for how long.

use std::collections::BTreeMap;

use http::HeaderName;
use hyper_rustls::HttpsConnectorBuilder;
use signalpost_core::{
    DestinationSecrets, DestinationSpec, TenantId, Timestamp,
    secret::{Auth, Secret},
    signature::{DigestEncoding, HmacScheme, default_signatures},
};
use signalpost_runtime::{SystemClock, SystemEntropy};

use super::*;
use crate::{proxy::Way, resolver, resolver::Resolver, signatures::Unfit};

const V1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn vault() -> Arc<KeyRing> {
    Arc::new(KeyRing::parse(KeyRing::generate("k1", &SystemEntropy).reveal()).unwrap())
}

fn plans(vault: &Arc<KeyRing>) -> Plans {
    let egress = Arc::new(EgressPolicy::public_only());
    let resolver = Resolver::new(Arc::clone(&egress), Arc::new(SystemClock::new()), resolver::system());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(Way::new(resolver, None, Duration::from_secs(1)));
    let pool = Pool::new(1, 1, Duration::from_secs(1));
    Plans::new(egress, Arc::clone(vault), pool, connector.clone(), connector)
}

fn destination(vault: &KeyRing, secrets: &DestinationSecrets) -> Destination {
    let at = Timestamp::from_millis(0);
    let id = DestinationId::from_parts(at, [1; 10]);
    let spec = serde_json::json!({"url": "https://a.example/", "event_types": ["*"]});
    Destination::new(
        id,
        TenantId::DEFAULT,
        DestinationSpec { signatures: default_signatures(), ..serde_json::from_value(spec).unwrap() },
        Kept::Sealed(vault.seal_destination(&SystemEntropy, TenantId::DEFAULT, id, secrets)),
        at,
    )
}

fn secrets(auth: Option<Auth>) -> DestinationSecrets {
    let headers = BTreeMap::from([("X-Key".to_owned(), Secret::new("k-{event.id}"))]);
    DestinationSecrets { headers, auth, ..DestinationSecrets::signing(Secret::new(V1)) }
}

#[test]
fn they_are_opened_once_and_anew_when_they_change() {
    let vault = vault();
    let known = plans(&vault);
    let first = destination(&vault, &secrets(None));
    let opened = known.of(&first).unwrap();
    assert!(Arc::ptr_eq(&opened, &known.of(&first.clone()).unwrap()));
    // Encrypted anew by a rotation of keys: the same secrets, other bytes, the same version.
    let again = destination(&vault, &secrets(None));
    assert_ne!(first.secrets, again.secrets);
    assert!(!Arc::ptr_eq(&opened, &known.of(&again).unwrap()));
    // Other schemes, the same bytes.
    let mut hmac = again.clone();
    hmac.spec.signatures = vec![SignatureScheme::Hmac(HmacScheme {
        header: "x-sig".into(),
        prefix: String::new(),
        encoding: DigestEncoding::Hex,
        canonical: signalpost_core::signature::Canonical::Raw,
    })];
    let mut headers = http::HeaderMap::new();
    known.of(&hmac).unwrap().opened.signers.sign(&mut headers, "evt_1", Timestamp::from_millis(0), b"{}");
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sig"]);
}

#[test]
fn what_does_not_open_or_sign_is_told_apart() {
    let known = plans(&vault());
    let foreign = destination(&vault(), &secrets(None));
    assert!(matches!(known.of(&foreign), Err(NoPlan::Secrets(NoSecrets::Closed(_)))));
    let mut bad = foreign;
    bad.secrets = Kept::plain("no-secret");
    assert!(matches!(known.of(&bad), Err(NoPlan::Secrets(NoSecrets::Unfit(Unfit::Standard(_))))));
    assert!(!format!("{known:?}").contains("no-secret"));
}

#[test]
fn a_url_is_judged_again_when_it_changes() {
    let vault = vault();
    let known = plans(&vault);
    let first = destination(&vault, &secrets(None));
    let with_url = |url: &str| {
        let mut other = first.clone();
        other.spec.url = url.into();
        known.of(&other)
    };
    assert!(known.of(&first).is_ok());
    assert!(matches!(with_url("https://10.0.0.1/"), Err(NoPlan::Denied(UrlDenied::Address))));
    // What was refused is not remembered, and what stands beside it is.
    assert!(matches!(with_url("https://10.0.0.1/"), Err(NoPlan::Denied(UrlDenied::Address))));
    assert!(known.of(&first).is_ok());
    for (url, target, authority) in [
        ("https://a.example", "/", "a.example"),
        ("https://A.example:443//x/../y?z=1#part", "//y?z=1", "a.example"),
        ("https://a.example:8443/?", "/?", "a.example:8443"),
        ("https://[2606:4700::1111]:8443/x", "/x", "[2606:4700::1111]:8443"),
    ] {
        let plan = with_url(url).unwrap();
        assert_eq!((plan.target.to_string().as_str(), plan.authority.to_str().unwrap()), (target, authority), "{url}");
    }
}

#[test]
fn destinations_of_one_host_share_its_connections() {
    let vault = vault();
    let known = plans(&vault);
    let first = destination(&vault, &secrets(None));
    let mut other = first.clone();
    other.id = DestinationId::from_parts(Timestamp::from_millis(0), [2; 10]);
    other.secrets = Kept::plain(V1);
    other.spec.url = "https://a.example:443/other".into();
    let host = Arc::clone(&known.of(&first).unwrap().host);
    assert!(Arc::ptr_eq(&host, &known.of(&other).unwrap().host));
    other.spec.url = "https://a.example:8443/other".into();
    assert!(!Arc::ptr_eq(&host, &known.of(&other).unwrap().host));
}
