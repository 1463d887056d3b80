//! Every forbidden spelling is refused at send, and what is allowed is not. (At create: the same lists in the API's tests.)

use std::collections::BTreeSet;

use signalpost_core::classify::Answer;
use signalpost_sender::UrlDenied;

use crate::support::{ALLOWED, FORBIDDEN, public, send, sender, urls};

#[tokio::test]
async fn every_forbidden_spelling_is_refused_at_send() {
    let forbidden = urls(FORBIDDEN);
    let distinct: BTreeSet<&String> = forbidden.iter().collect();
    assert!(distinct.len() >= 150, "{} spellings", distinct.len());
    assert_eq!(distinct.len(), forbidden.len(), "one stands twice");
    let (sender, _) = sender(public());
    let mut passed = Vec::new();
    for url in &forbidden {
        let exchange = send(&sender, url).await;
        // A status, "unreachable" or a name that does not resolve: then somebody was asked.
        if exchange.answer != Answer::EgressDenied || exchange.status_code.is_some() {
            passed.push((url, exchange));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}

#[test]
fn every_allowed_spelling_passes() {
    let policy = public();
    for url in urls(ALLOWED) {
        let normal = policy.check_url(&url).unwrap_or_else(|denied| panic!("{url:?}: {denied}"));
        // What is kept is the normal form. It must not mean anything else than what was judged.
        assert_eq!(policy.check_url(normal.as_str()).as_ref(), Ok(&normal), "{url:?}");
    }
}

#[test]
fn what_is_refused_is_told_without_an_address_that_its_owner_did_not_write() {
    let policy = public();
    for url in urls(FORBIDDEN) {
        let text = policy.check_url(&url).unwrap_err().to_string();
        let digits = text.chars().filter(char::is_ascii_digit).count();
        let port = matches!(policy.check_url(&url), Err(UrlDenied::Port(_)));
        assert!(port || digits == 0, "{url:?}: {text}");
    }
}
