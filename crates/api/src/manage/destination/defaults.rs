//! What a destination has where its owner says nothing: the operator's `[destination_defaults]`.
//!
//! They are written in the API's own words and fill the document of a destination before [`super::read`] reads it, which is
//! also what judges them at the start. `rate_limit: null` is no gap to fill: it says that there is no limit.

use serde_json::{Map, Value};
use signalpost_core::Tenant;

use super::{circuit, retry};
use crate::problem::FieldError;

/// Members that are a destination's own.
const OWN: &[&str] = &["url", "uid", "secret", "auth"];

/// A valid URL, for reading defaults; it goes nowhere.
const ANY_URL: &str = "https://example.com/";

/// Defaults that are in force. `Default` has none: those of the API stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DestinationDefaults(Map<String, Value>);

/// Defaults that no destination could have.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub struct BadDefaults(Vec<FieldError>);

fn told(errors: &[FieldError]) -> String {
    let told =
        errors.iter().map(|error| format!("destination_defaults{}: {}", error.pointer.replace('/', "."), error.detail));
    told.collect::<Vec<_>>().join("; ")
}

impl BadDefaults {
    /// Each breach, with its place in the defaults.
    pub fn into_errors(self) -> Vec<FieldError> {
        self.0
    }
}

impl DestinationDefaults {
    /// Judges them as a request is judged.
    ///
    /// # Errors
    /// All that is wrong with them, in one line.
    pub fn new(members: Map<String, Value>) -> Result<Self, BadDefaults> {
        let own = OWN.iter().filter(|name| members.contains_key(**name));
        let mut errors: Vec<FieldError> =
            own.map(|name| FieldError::new(format!("/{name}"), "can have no default")).collect();
        let mut document = members.clone();
        document.retain(|name, _| !OWN.contains(&name.as_str()));
        document.insert("url".to_owned(), Value::from(ANY_URL));
        if let Err(problem) = super::read(&document, &|url| Ok(url.to_owned())) {
            errors.extend(problem.errors);
        }
        if errors.is_empty() { Ok(Self(members)) } else { Err(BadDefaults(errors)) }
    }

    /// Those of a tenant, which were judged when they were set.
    pub fn of(tenant: &Tenant) -> Self {
        Self(tenant.spec.destination_defaults.clone())
    }

    /// Fills what is absent or null; of create and PUT.
    pub fn fill(&self, document: &mut Map<String, Value>) {
        for (name, default) in &self.0 {
            document.entry(name.as_str()).or_insert_with(|| default.clone());
        }
        self.fill_nulls(document);
    }

    /// Fills what is null, and what is left out of objects; of PATCH, where what is absent has no value by its owner's wish.
    pub fn fill_nulls(&self, document: &mut Map<String, Value>) {
        for (name, default) in &self.0 {
            match (name.as_str(), document.get_mut(name), default) {
                ("retry", Some(Value::Object(members)), Value::Object(default)) => retry::fill(members, default),
                ("rate_limit", Some(Value::Object(members)), Value::Object(default)) => fill_rate(members, default),
                ("circuit", Some(Value::Object(members)), Value::Object(default)) => circuit::fill(members, default),
                ("disable_after", Some(Value::Object(members)), Value::Object(default)) => fill_gaps(members, default),
                ("rate_limit", _, _) => {}
                (_, Some(value @ Value::Null), _) => *value = default.clone(),
                _ => {}
            }
        }
    }
}

fn fill_gaps(members: &mut Map<String, Value>, default: &Map<String, Value>) {
    for (name, value) in default {
        if members.get(name).is_none_or(Value::is_null) {
            members.insert(name.clone(), value.clone());
        }
    }
}

/// A burst belongs to its rate.
fn fill_rate(members: &mut Map<String, Value>, default: &Map<String, Value>) {
    if members.get("per_second").is_none_or(Value::is_null)
        && let Some(rate) = default.get("per_second")
    {
        members.insert("per_second".to_owned(), rate.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaults(members: Value) -> Result<DestinationDefaults, String> {
        DestinationDefaults::new(members.as_object().unwrap().clone()).map_err(|error| error.to_string())
    }

    fn filled(default: Value, document: Value) -> Value {
        let mut document = document.as_object().unwrap().clone();
        defaults(default).unwrap().fill(&mut document);
        document.into()
    }

    #[test]
    fn bad_ones_are_told_in_one_line() {
        for (members, told) in [
            (json!({"timeout_ms": 5}), "destination_defaults.timeout_ms: must be a whole number from 1000 to 60000"),
            (
                json!({"retry": {"jitter": 2}, "nonsense": 1}),
                "destination_defaults.retry.jitter: must be a number from 0 to 1; destination_defaults.nonsense: is not \
                 a known field",
            ),
            (
                json!({"url": "https://a.example/", "secret": "x", "auth": {"type": "bearer", "token": "x"}}),
                "destination_defaults.url: can have no default; destination_defaults.secret: can have no default; \
                 destination_defaults.auth: can have no default",
            ),
        ] {
            assert_eq!(defaults(members.clone()), Err(told.to_owned()), "{members}");
        }
        assert_eq!(defaults(json!({})), Ok(DestinationDefaults::default()));
    }

    #[test]
    fn what_is_absent_or_null_is_filled() {
        let default = json!({"timeout_ms": 2000, "headers": {"X-A": "1"}, "rate_limit": {"per_second": 5, "burst": 9}});
        for (document, expected) in [
            (json!({}), default.clone()),
            (json!({"timeout_ms": null, "headers": null}), default.clone()),
            (
                json!({"timeout_ms": 3000, "headers": {}, "rate_limit": null}),
                json!({"timeout_ms": 3000, "headers": {}, "rate_limit": null}),
            ),
            (
                json!({"timeout_ms": 3000, "headers": {}, "rate_limit": {"burst": 2}}),
                json!({"timeout_ms": 3000, "headers": {}, "rate_limit": {"burst": 2, "per_second": 5}}),
            ),
            (
                json!({"timeout_ms": 3000, "headers": {}, "rate_limit": {"per_second": 100}}),
                json!({"timeout_ms": 3000, "headers": {}, "rate_limit": {"per_second": 100}}),
            ),
        ] {
            assert_eq!(filled(default.clone(), document.clone()), expected, "{document}");
        }
    }

    #[test]
    fn a_policy_is_filled_by_one_of_its_own_strategy() {
        let default = json!({"retry": {"strategy": "exponential", "initial_ms": 50, "max_attempts": 7, "jitter": 0.5}});
        for (retry, expected) in [
            (
                json!({"initial_ms": 80}),
                json!({"strategy": "exponential", "initial_ms": 80, "max_attempts": 7, "jitter": 0.5}),
            ),
            (
                json!({"strategy": "exponential", "max_attempts": null}),
                json!({"strategy": "exponential", "initial_ms": 50, "max_attempts": null, "jitter": 0.5}),
            ),
            (
                json!({"on_4xx": "never", "jitter": null}),
                json!({
                    "strategy": "exponential", "initial_ms": 50, "max_attempts": 7, "jitter": 0.5, "on_4xx": "never",
                }),
            ),
            (json!({"delays_ms": [10]}), json!({"delays_ms": [10], "jitter": 0.5})),
            (json!({"strategy": "schedule"}), json!({"strategy": "schedule", "jitter": 0.5})),
            (json!({"strategy": "linear"}), json!({"strategy": "linear", "jitter": 0.5})),
        ] {
            let document = json!({"retry": retry});
            assert_eq!(filled(default.clone(), document.clone())["retry"], expected, "{document}");
        }
        // A default that means no strategy leaves it to the next one.
        let mut document = json!({"retry": {"jitter": 0.1}}).as_object().unwrap().clone();
        defaults(json!({"retry": {"on_4xx": "always"}})).unwrap().fill(&mut document);
        defaults(default).unwrap().fill(&mut document);
        let expected = json!({
            "strategy": "exponential", "initial_ms": 50, "max_attempts": 7, "jitter": 0.1, "on_4xx": "always",
        });
        assert_eq!(document["retry"], expected);
        // A schedule that was written without its strategy is one.
        let filled = filled(json!({"retry": {"delays_ms": [10]}}), json!({"retry": {"strategy": "schedule"}}));
        assert_eq!(filled["retry"], json!({"strategy": "schedule", "delays_ms": [10]}));
    }

    #[test]
    fn a_circuit_and_its_giving_up_are_filled_by_member() {
        let default = json!({
            "circuit": {"open_ms": 50_000, "max_open_ms": 60_000, "probes": 1}, "disable_after": {"days": 9},
        });
        for (document, expected) in [
            (json!({}), default.clone()),
            (json!({"circuit": null, "disable_after": null}), default.clone()),
            (
                json!({"circuit": {"probes": 5, "open_ms": null}, "disable_after": {"attempts": 7}}),
                json!({
                    "circuit": {"open_ms": 50_000, "max_open_ms": 60_000, "probes": 5},
                    "disable_after": {"days": 9, "attempts": 7},
                }),
            ),
            // The operator's longest time is none for who asks for a longer first one.
            (
                json!({"circuit": {"open_ms": 90_000}, "disable_after": {}}),
                json!({"circuit": {"open_ms": 90_000, "probes": 1}, "disable_after": {"days": 9}}),
            ),
            // Nor his first time for who asks for a shorter longest one.
            (
                json!({"circuit": {"max_open_ms": 40_000}, "disable_after": {}}),
                json!({"circuit": {"max_open_ms": 40_000, "probes": 1}, "disable_after": {"days": 9}}),
            ),
        ] {
            assert_eq!(filled(default.clone(), document.clone()), expected, "{document}");
        }
    }

    #[test]
    fn a_patch_fills_no_gap() {
        let mut document = json!({"timeout_ms": null}).as_object().unwrap().clone();
        let default = json!({"timeout_ms": 2000, "rate_limit": {"per_second": 5}});
        defaults(default).unwrap().fill_nulls(&mut document);
        assert_eq!(Value::from(document), json!({"timeout_ms": 2000}));
    }
}
