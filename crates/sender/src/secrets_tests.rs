//! What is remembered of secrets, and for how long.

use std::collections::BTreeMap;

use signalpost_core::{
    DestinationSecrets, DestinationSpec, DestinationState, TenantId, Timestamp,
    signature::{DigestEncoding, HmacScheme, default_signatures},
};
use signalpost_runtime::SystemEntropy;

use super::*;

const V1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn vault() -> Arc<KeyRing> {
    Arc::new(KeyRing::parse(KeyRing::generate("k1", &SystemEntropy).reveal()).unwrap())
}

fn destination(vault: &KeyRing, secrets: &DestinationSecrets) -> Destination {
    let at = Timestamp::from_millis(0);
    let id = DestinationId::from_parts(at, [1; 10]);
    let spec = serde_json::json!({"url": "https://a.example/", "event_types": ["*"]});
    Destination {
        id,
        tenant_id: TenantId::DEFAULT,
        uid: None,
        spec: DestinationSpec { signatures: default_signatures(), ..serde_json::from_value(spec).unwrap() },
        secrets: Kept::Sealed(vault.seal_destination(&SystemEntropy, TenantId::DEFAULT, id, secrets)),
        state: DestinationState::Active,
        disabled_reason: None,
        circuit: signalpost_core::CircuitRecord::default(),
        version: 1,
        created_at: at,
        updated_at: at,
    }
}

fn secrets(auth: Option<Auth>) -> DestinationSecrets {
    let headers = BTreeMap::from([("X-Key".to_owned(), Secret::new("k-{event.id}"))]);
    DestinationSecrets { headers, auth, ..DestinationSecrets::signing(Secret::new(V1)) }
}

#[test]
fn they_are_opened_once_and_anew_when_they_change() {
    let vault = vault();
    let known = Secrets::new(Arc::clone(&vault));
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
    known.of(&hmac).unwrap().signers.sign(&mut headers, "evt_1", Timestamp::from_millis(0), b"{}");
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sig"]);
}

#[test]
fn what_does_not_open_or_sign_is_told_apart() {
    let known = Secrets::new(vault());
    let foreign = destination(&vault(), &secrets(None));
    assert!(matches!(known.of(&foreign), Err(NoSecrets::Closed(_))));
    let mut bad = foreign;
    bad.secrets = Kept::plain("no-secret");
    assert!(matches!(known.of(&bad), Err(NoSecrets::Unfit(Unfit::Standard(_)))));
    assert!(!format!("{known:?}").contains("no-secret"));
}

#[test]
fn credentials_become_a_header() {
    let secret = Secret::new;
    for (auth, name, value) in [
        (
            Auth::Basic { username: "anna".into(), password: secret("pass word") },
            "authorization",
            "Basic YW5uYTpwYXNzIHdvcmQ=",
        ),
        (Auth::Bearer { token: secret("t0ken") }, "authorization", "Bearer t0ken"),
        (Auth::ApiKey { header: "X-Api-Key".into(), value: secret("v4lue") }, "x-api-key", "v4lue"),
    ] {
        let (found, shown) = auth_header(&auth).unwrap();
        assert_eq!((found.as_str(), shown.to_str().unwrap()), (name, value));
        assert!(!format!("{shown:?}").contains(value), "sensitive");
    }
    assert!(auth_header(&Auth::Bearer { token: secret("a\nb") }).is_none());
}
