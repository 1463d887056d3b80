//! What may be said of a destination, and what it means: create, PUT and PATCH are all a JSON document that
//! [`read`] turns into a [`Draft`], or into everything that is wrong with it. [`secrets`] tells what of it is secret from then on.

pub mod auth;
pub mod circuit;
mod defaults;
pub mod patch;
pub mod retry;
pub mod secrets;
pub mod signatures;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

pub use defaults::{BadDefaults, DestinationDefaults};
use serde_json::{Map, Value};
use signalpost_core::{
    DestinationSpec,
    destination::{BodyFormat, DisableAfter, Guarantee, Method, RateLimit, default_max_in_flight, default_timeout_ms},
    ordering::{OnDead, Ordering, OrderingMode, check_pointer, default_key_from},
    pattern::EventPattern,
    retry_policy::RetryPolicy,
    secret::{Auth, Secret},
    signature::SignatureScheme,
};
use signalpost_sender::EgressPolicy;

use super::fields::{Fields, Violations, check_text};
use crate::{events::rules, json::child, problem::Problem};

/// The longest URL.
pub const MAX_URL: usize = 4096;
/// The most headers of a destination.
pub const MAX_HEADERS: usize = 100;
/// The most bytes of a destination's headers, names and values: what servers commonly accept of one request.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The longest value of a header or of an entry of `metadata`.
pub const MAX_VALUE: usize = 4096;
/// The most entries of `metadata`.
pub const MAX_METADATA: usize = 100;
/// The most patterns.
pub const MAX_PATTERNS: usize = 1000;

/// What only we set. A client that sends it back is told so.
const READ_ONLY: &[&str] = &["id", "disabled_reason", "circuit_state", "created_at", "updated_at"];

/// What the owner of a destination asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its own id, where it gave one.
    pub uid: Option<String>,
    /// The secret, where it gave one; it can sign with `spec.signatures`.
    pub secret: Option<Secret>,
    /// Its credentials, where it said something of them: `Some(None)` where there shall be none.
    pub auth: Option<Option<Auth>>,
    /// The values of further headers.
    pub headers: BTreeMap<String, Secret>,
    /// All else.
    pub spec: DestinationSpec,
}

/// The normal form of a URL that an owner writes.
///
/// # Errors
/// It is not to be sent to, or too long as it is written or in its normal form: that one is kept, and may be written again.
pub fn normal_url(egress: &EgressPolicy, text: &str) -> Result<String, String> {
    check_text(text, 1..=MAX_URL)?;
    let url = String::from(egress.check_url(text).map_err(|denied| denied.to_string())?);
    if url.len() > MAX_URL {
        return Err(format!("must have at most {MAX_URL} characters once others than ASCII are encoded"));
    }
    Ok(url)
}

/// Reads a whole document. `check_url` judges the URL and gives its normal form.
///
/// # Errors
/// 422, with everything that is wrong with it.
pub fn read(
    document: &Map<String, Value>,
    check_url: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Draft, Problem> {
    let mut violations = Violations::default();
    let mut fields = Fields::new(document, "", &mut violations);
    let uid = fields.parsed("uid", |text| rules::uid(text).map(|()| text.to_owned()));
    let headers = read_headers(&mut fields);
    let header_names: BTreeSet<String> = headers.keys().cloned().collect();
    let signatures = signatures::read(&mut fields, &header_names);
    let secret = fields
        .parsed("secret", |text| signalpost_sender::signatures::check(&signatures, text).map(|()| Secret::new(text)));
    let auth = auth::read(&mut fields, document);
    let spec = read_spec(&mut fields, header_names, signatures, check_url);
    fields.refuse(
        &["state", "paused"],
        "is changed by POST /v1/destinations/{id}/pause and /v1/destinations/{id}/resume",
    );
    fields.finish(READ_ONLY);
    violations.or(Draft { uid, secret, auth, headers, spec })
}

fn read_spec(
    fields: &mut Fields<'_>,
    header_names: BTreeSet<String>,
    signatures: Vec<SignatureScheme>,
    check_url: &dyn Fn(&str) -> Result<String, String>,
) -> DestinationSpec {
    let name = fields.text("name", 0..=256).unwrap_or_default().to_owned();
    let description = fields.text("description", 0..=4096).map(str::to_owned);
    let url = read_url(fields, check_url);
    let event_types = fields
        .items("event_types", MAX_PATTERNS, |item| {
            let text = item.as_str().ok_or_else(|| "must be a string".to_owned())?;
            EventPattern::new(text).map_err(|error| error.to_string())
        })
        .unwrap_or_else(|| vec![EventPattern::everything()]);
    let method = fields
        .choice("method", &[("POST", Method::Post), ("PUT", Method::Put), ("PATCH", Method::Patch)])
        .unwrap_or_default();
    let body_format = fields
        .choice(
            "body_format",
            &[("standard", BodyFormat::Standard), ("data", BodyFormat::Data), ("cloudevents", BodyFormat::Cloudevents)],
        )
        .unwrap_or_default();
    let timeout_ms = fields.integer("timeout_ms", 1000..=60_000).and_then(|ms| u32::try_from(ms).ok());
    let rate_limit = fields.object("rate_limit", read_rate_limit);
    let max_in_flight = whole(fields.integer("max_in_flight", 1..=10_000));
    let retry = read_retry(fields);
    let circuit = fields.object("circuit", circuit::read).unwrap_or_default();
    let guarantee = fields
        .choice("guarantee", &[("at_least_once", Guarantee::AtLeastOnce), ("at_most_once", Guarantee::AtMostOnce)])
        .unwrap_or_default();
    let ordering = read_ordering(fields);
    let disable_after = fields.object("disable_after", read_disable_after).unwrap_or_default();
    let metadata = read_map(fields, "metadata", MAX_METADATA, |_, value| check_text(value, 0..=MAX_VALUE));
    DestinationSpec {
        name,
        description,
        url,
        event_types,
        method,
        header_names,
        signatures,
        body_format,
        timeout_ms: timeout_ms.unwrap_or_else(default_timeout_ms),
        rate_limit,
        max_in_flight: max_in_flight.unwrap_or_else(default_max_in_flight),
        retry,
        circuit,
        guarantee,
        ordering,
        disable_after,
        metadata,
    }
}

fn whole(number: Option<u64>) -> Option<NonZeroU32> {
    number.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new)
}

fn read_url(fields: &mut Fields<'_>, check_url: &dyn Fn(&str) -> Result<String, String>) -> String {
    if fields.value("url").is_none() {
        fields.wrong("url", "is required");
        return String::new();
    }
    fields.parsed("url", check_url).unwrap_or_default()
}

fn read_rate_limit(fields: &mut Fields<'_>) -> Option<RateLimit> {
    let per_second = fields.number("per_second", 0.001..=100_000.0);
    let burst = whole(fields.integer("burst", 1..=1_000_000));
    if fields.value("per_second").is_none() {
        fields.wrong("per_second", "is required");
    }
    Some(RateLimit { per_second: per_second?, burst })
}

fn read_retry(fields: &mut Fields<'_>) -> RetryPolicy {
    fields.object("retry", retry::read).unwrap_or_default()
}

fn read_ordering(fields: &mut Fields<'_>) -> Ordering {
    Ordering {
        mode: fields
            .choice("ordering", &[("none", OrderingMode::None), ("key", OrderingMode::Key)])
            .unwrap_or_default(),
        key_from: fields
            .parsed("ordering_key_from", |text| {
                check_text(text, 1..=1024)?;
                check_pointer(text).map(|()| text.to_owned())
            })
            .unwrap_or_else(default_key_from),
        on_dead: fields
            .choice("ordering_on_dead", &[("continue", OnDead::Continue), ("block", OnDead::Block)])
            .unwrap_or_default(),
    }
}

fn read_disable_after(fields: &mut Fields<'_>) -> Option<DisableAfter> {
    let default = DisableAfter::default();
    Some(DisableAfter {
        days: whole(fields.integer("days", 1..=365)).unwrap_or(default.days),
        attempts: whole(fields.integer("attempts", 1..=1_000_000)).unwrap_or(default.attempts),
    })
}

/// A map of strings.
fn read_map(
    fields: &mut Fields<'_>,
    name: &'static str,
    most: usize,
    check: impl Fn(&str, &str) -> Result<(), String>,
) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    let Some(members) = fields.members(name) else { return map };
    let pointer = fields.pointer(name);
    if members.len() > most {
        fields.wrong(name, format_args!("may have at most {most} members"));
        return map;
    }
    for (key, value) in members {
        let checked = match value.as_str() {
            None => Err("must be a string".to_owned()),
            Some(text) => check_text(key, 1..=256)
                .map_err(|error| format!("its name {error}"))
                .and_then(|()| check(key, text))
                .map(|()| text),
        };
        match checked {
            Ok(text) => {
                map.insert(key.clone(), text.to_owned());
            }
            Err(detail) => fields.wrong_at(child(&pointer, key), detail),
        }
    }
    map
}

fn read_headers(fields: &mut Fields<'_>) -> BTreeMap<String, Secret> {
    let headers = read_map(fields, "headers", MAX_HEADERS, |name, value| {
        check_text(value, 0..=MAX_VALUE)?;
        if value == crate::audit::MASK {
            return Err("stands for a value that is there already, and there is none".to_owned());
        }
        signalpost_sender::headers::check(name, value).map_err(|error| error.to_string())
    });
    // Names of headers know no case, keys of JSON do.
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut twice = Vec::new();
    for name in headers.keys() {
        if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
            twice.push((name.clone(), format!("is the same header as `{first}`")));
        }
    }
    let pointer = fields.pointer("headers");
    for (name, detail) in twice {
        fields.wrong_at(child(&pointer, &name), detail);
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        fields.wrong("headers", format_args!("may have at most {MAX_HEADER_BYTES} bytes, names and values"));
    }
    headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
}

#[cfg(test)]
mod tests;
