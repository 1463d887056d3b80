//! What may be said of a tenant: create and PATCH are a JSON document that [`read`] turns into a [`Draft`], or into everything
//! that is wrong with it.

use std::num::NonZeroU32;

use serde_json::{Map, Value};
use signalpost_core::{
    Secret, Tenant, TenantSpec,
    tenant::{IngestSignature, Quotas},
};

use super::{
    destination::{DestinationDefaults, signatures::hmac},
    fields::{Fields, Violations, check_text},
};
use crate::{audit::MASK, problem::Problem};

/// What only we set.
const READ_ONLY: &[&str] = &["id", "deleting", "created_at", "updated_at"];

/// What strangers do not set.
const OPERATORS: [&str; 4] = ["slug", "quotas", "destination_defaults", "ingest_signature"];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A new tenant, by an operator.
    Create,
    /// A new tenant, by somebody without a key.
    Register,
    /// A change, by an operator.
    Patch,
}

/// What is asked for a tenant.
#[derive(Debug, PartialEq)]
pub struct Draft {
    /// Its slug, where it gives one.
    pub slug: Option<String>,
    /// What is kept as it is.
    pub spec: TenantSpec,
    /// The secret of `spec.ingest_signature`.
    pub ingest_secret: IngestSecret,
    /// A first destination, not read yet.
    pub destination: Option<Map<String, Value>>,
}

/// The secret that a tenant's producers sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngestSecret {
    /// They need not sign.
    None,
    /// The one that is there.
    Present,
    /// This one.
    Given(Secret),
}

/// Reads a whole document.
///
/// # Errors
/// 422, with everything that is wrong with it.
pub fn read(document: &Map<String, Value>, asked: Asked) -> Result<Draft, Problem> {
    let mut violations = Violations::default();
    let mut fields = Fields::new(document, "", &mut violations);
    if asked == Asked::Register {
        for name in OPERATORS.into_iter().filter(|name| document.contains_key(*name)) {
            fields.wrong(name, "can be set by an operator only");
        }
    }
    if fields.value("name").is_none() {
        fields.wrong("name", "is required");
    }
    let name = fields.text("name", 1..=256).unwrap_or_default().to_owned();
    let slug = fields.parsed("slug", |text| check_slug(text).map(|()| text.to_owned()));
    let quotas = fields.object("quotas", read_quotas).unwrap_or_default();
    let destination_defaults = read_defaults(&mut fields);
    let ingest = fields.object("ingest_signature", read_ingest);
    let destination = if asked == Asked::Patch { None } else { fields.members("destination").cloned() };
    fields.finish(READ_ONLY);
    let (ingest_signature, ingest_secret) = match ingest {
        Some((signature, secret)) => (Some(signature), secret),
        None => (None, IngestSecret::None),
    };
    let spec = TenantSpec { name, quotas, destination_defaults, ingest_signature };
    violations.or(Draft { slug, spec, ingest_secret, destination })
}

/// A tenant as an operator would write it; its secret masked, which means that it stays.
pub fn document(tenant: &Tenant) -> Map<String, Value> {
    let mut document = match serde_json::to_value(&tenant.spec) {
        Ok(Value::Object(document)) => document,
        _ => Map::new(),
    };
    if let Some(Value::Object(signature)) = document.get_mut("ingest_signature") {
        signature.insert("secret".to_owned(), MASK.into());
    }
    // A burst without its rate, as it could once be written, stands for nothing.
    if tenant.spec.quotas.events_per_second.is_none()
        && let Some(Value::Object(quotas)) = document.get_mut("quotas")
    {
        quotas.remove("events_burst");
    }
    document.insert("slug".to_owned(), tenant.slug.as_str().into());
    document
}

/// Whether a text can be a slug: it stands in headers and links, and is not shaped like an id.
fn check_slug(text: &str) -> Result<(), &'static str> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits =
        (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    if fits { Ok(()) } else { Err("must be 1 to 63 of a-z, 0-9 and -, with no - at its ends") }
}

fn read_quotas(fields: &mut Fields<'_>) -> Option<Quotas> {
    let mut whole = |name, most| fields.integer(name, 1..=most).and_then(|number| u32::try_from(number).ok());
    let events_per_second = whole("events_per_second", 1_000_000).and_then(NonZeroU32::new);
    let events_burst = whole("events_burst", 1_000_000).and_then(NonZeroU32::new);
    let event_bytes = whole("event_bytes", 16 * 1024 * 1024).and_then(NonZeroU32::new);
    let destinations = fields.integer("destinations", 0..=1_000_000).and_then(|number| u32::try_from(number).ok());
    if events_burst.is_some() && fields.is_absent("events_per_second") {
        fields.wrong("events_burst", "needs `events_per_second`");
    }
    Some(Quotas { events_per_second, events_burst, destinations, event_bytes })
}

fn read_defaults(fields: &mut Fields<'_>) -> Map<String, Value> {
    let Some(members) = fields.members("destination_defaults") else { return Map::new() };
    let pointer = fields.pointer("destination_defaults");
    for name in ["headers", "auth"].into_iter().filter(|name| members.contains_key(*name)) {
        fields.wrong_at(format!("{pointer}/{name}"), "can have no default: it is secret");
    }
    if let Err(bad) = DestinationDefaults::new(members.clone()) {
        for error in bad.into_errors() {
            fields.wrong_at(format!("{pointer}{}", error.pointer), error.detail);
        }
    }
    members.clone()
}

fn read_ingest(fields: &mut Fields<'_>) -> Option<(IngestSignature, IngestSecret)> {
    if fields.value("scheme").is_none() {
        fields.wrong("scheme", "is required");
    }
    let is_hmac = fields.choice("scheme", &[("standard", false), ("hmac", true)]);
    let signature = if is_hmac? { IngestSignature::Hmac(hmac(fields)?) } else { IngestSignature::Standard };
    if fields.value("secret").is_none() {
        fields.wrong("secret", "is required");
    }
    let secret = fields.parsed("secret", |text| match text {
        MASK => Ok(IngestSecret::Present),
        text => check_secret(&signature, text).map(|()| IngestSecret::Given(Secret::new(text))),
    })?;
    Some((signature, secret))
}

/// Whether a secret is one of that scheme.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub fn check_secret(signature: &IngestSignature, text: &str) -> Result<(), String> {
    match signature {
        IngestSignature::Standard => {
            signalpost_signing::Secret::parse(text).map(|_| ()).map_err(|error| error.to_string())
        }
        IngestSignature::Hmac(_) => check_text(text, 1..=256),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(body: Value, asked: Asked) -> Vec<String> {
        let errors = read(body.as_object().unwrap(), asked).err().map(|problem| problem.errors).unwrap_or_default();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        for (body, expected) in [
            (json!({"name": "A"}), vec![]),
            (json!({}), vec!["/name"]),
            (json!({"name": "", "slug": "A", "id": "x", "more": 1}), vec!["/name", "/slug", "/id", "/more"]),
            (json!({"name": "A", "slug": "tnt_01h2e8kqvbfwea724h75qc655w"}), vec!["/slug"]),
            (json!({"name": "A", "slug": "-a"}), vec!["/slug"]),
            (
                json!({"name": "A", "quotas": {"events_per_second": 0, "events_burst": 5, "more": 1}}),
                vec!["/quotas/events_per_second", "/quotas/more"],
            ),
            (json!({"name": "A", "quotas": {"events_burst": 5}}), vec!["/quotas/events_burst"]),
            (
                json!({"name": "A", "quotas": {"events_per_second": null, "events_burst": 5}}),
                vec!["/quotas/events_burst"],
            ),
            (json!({"name": "A", "quotas": {"destinations": 0, "event_bytes": 1}}), vec![]),
            (
                json!({"name": "A", "destination_defaults": {"timeout_ms": 1, "headers": {"X-A": "b"}, "url": "x"}}),
                vec!["/destination_defaults/headers", "/destination_defaults/url", "/destination_defaults/timeout_ms"],
            ),
            (json!({"name": "A", "ingest_signature": {"scheme": "standard", "secret": secret}}), vec![]),
            (
                json!({"name": "A", "ingest_signature": {"scheme": "standard", "secret": "short"}}),
                vec!["/ingest_signature/secret"],
            ),
            (json!({"name": "A", "ingest_signature": {"scheme": "standard"}}), vec!["/ingest_signature/secret"]),
            (json!({"name": "A", "ingest_signature": {"scheme": "hmac", "header": "X-S", "secret": "s"}}), vec![]),
            (
                json!({"name": "A", "ingest_signature": {"scheme": "hmac", "header": "a b", "secret": "s"}}),
                vec!["/ingest_signature/header", "/ingest_signature/secret"],
            ),
        ] {
            assert_eq!(pointers(body.clone(), Asked::Create), expected, "{body}");
        }
        let body = json!({"name": "A", "slug": "a", "quotas": {}, "destination": {}});
        assert_eq!(pointers(body.clone(), Asked::Register), ["/slug", "/quotas"]);
        assert_eq!(pointers(body, Asked::Patch), ["/destination"]);
    }

    #[test]
    fn a_tenant_is_read_as_it_was_written() {
        let body = json!({
            "name": "A", "slug": "a", "quotas": {"events_per_second": 5, "events_burst": 9},
            "destination_defaults": {"timeout_ms": 2000},
            "ingest_signature": {"scheme": "hmac", "header": "X-S", "canonical": "sorted_keys", "secret": "s3cret"},
        });
        let draft = read(body.as_object().unwrap(), Asked::Create).unwrap();
        assert_eq!(draft.ingest_secret, IngestSecret::Given(Secret::new("s3cret")));
        let at = signalpost_core::Timestamp::from_micros(0);
        let tenant = Tenant {
            id: signalpost_core::TenantId::DEFAULT,
            slug: draft.slug.clone().unwrap(),
            spec: draft.spec.clone(),
            ingest_secret: None,
            version: 1,
            created_at: at,
            updated_at: at,
            deleting: None,
        };
        let again = document(&tenant);
        assert_eq!(again["ingest_signature"]["secret"], "***");
        let again = read(&again, Asked::Patch).unwrap();
        assert_eq!(again, Draft { ingest_secret: IngestSecret::Present, ..draft });
    }
}
