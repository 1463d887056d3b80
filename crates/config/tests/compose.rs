//! `docker-compose.yml` sets only settings that exist, and leaves empty what may be empty.

use std::collections::BTreeSet;

#[test]
fn compose_names_settings_that_exist() {
    let compose = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker-compose.yml")).unwrap();
    let used: BTreeSet<&str> = compose
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("SIGNALPOST_"))
        .collect();
    assert!(used.len() >= 5, "{used:?}");
    let known: BTreeSet<String> = signalpost_config::settings::all().map(|setting| setting.variable()).collect();
    // Properties of librdkafka are handed on, whatever they are.
    let handed_on = ["SIGNALPOST_KAFKA_SESSION_TIMEOUT_MS"];
    for name in used.into_iter().filter(|name| !handed_on.contains(name)) {
        assert!(known.contains(name), "{name} is no setting");
    }
    // `${X:-default}` puts the default where `.env` has an empty value.
    for setting in signalpost_config::settings::all().filter(|setting| setting.empty_is_a_value) {
        assert!(!compose.contains(&format!("${{{}:-", setting.variable())), "{} cannot be emptied", setting.variable());
    }
}
