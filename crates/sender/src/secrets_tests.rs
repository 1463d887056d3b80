//! What becomes of credentials.

use signalpost_core::secret::Secret;

use super::*;

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
