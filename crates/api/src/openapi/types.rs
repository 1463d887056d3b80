//! The small types of the API as OpenAPI knows them: ids, times, and the names of states. None of them is ever made:
//! they only stand in `#[schema(value_type = …)]` for types of the core, which knows nothing of OpenAPI.

use std::borrow::Cow;

use signalpost_core::{AttemptOutcome, DeadReason, DeliveryStatus, Scope};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};

/// The name of the waiting states that the API shows.
pub const WAITING_FOR: [&str; 6] = ["retry", "rate_limit", "slot", "circuit", "paused", "lane"];

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn id(prefix: &str, of: &str) -> Schema {
    text()
        .description(Some(format!("The id of {of}.")))
        .pattern(Some(format!("^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$")))
        .examples([serde_json::Value::from(format!("{prefix}_01h2e8kqvbfwea724h75qc655w"))])
        .into()
}

fn names<'a>(description: &str, names: impl IntoIterator<Item = &'a str>) -> Schema {
    text().description(Some(description)).enum_values(Some(names.into_iter().map(str::to_owned))).into()
}

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident $text:literal => $schema:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> { RefOr::T($schema) }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> { Cow::Borrowed($text) }
        }
    )*};
}

types! {
    /// `evt_…`
    EventIdText "EventId" => id("evt", "an event");
    /// `dst_…`
    DestinationIdText "DestinationId" => id("dst", "a destination");
    /// `dst_…`, or a `uid`
    DestinationNameText "DestinationName" => text()
        .description(Some("The id of a destination, or its `uid`."))
        .min_length(Some(1))
        .max_length(Some(256))
        .examples([serde_json::Value::from("dst_01h2e8kqvbfwea724h75qc655w")])
        .into();
    /// `dlv_…`
    DeliveryIdText "DeliveryId" => id("dlv", "a delivery");
    /// `tnt_…`
    TenantIdText "TenantId" => id("tnt", "a tenant");
    /// `key_…`
    KeyIdText "KeyId" => id("key", "a key");
    /// `aud_…`
    AuditIdText "AuditId" => id("aud", "an entry of the audit log");
    /// `events:write`
    ScopeText "Scope" => names("What a key may do.", Scope::ALL.iter().map(|scope| scope.as_str()));
    /// `acme`
    SlugText "Slug" => text()
        .description(Some("The name of a tenant in headers and links; unique."))
        .pattern(Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))
        .examples([serde_json::Value::from("acme")])
        .into();
    /// `rpl_…`
    ReplayIdText "ReplayId" => id("rpl", "a replay job");
    /// RFC 3339.
    TimeText "Time" => text().description(Some("RFC 3339, in UTC."))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into();
    /// `order.*`
    EventPatternText "EventPattern" => text()
        .description(Some("Over event types: exact, `*` for one segment, `**` for any number, a lone `*` for everything."))
        .max_length(Some(256))
        .pattern(Some(r"^(\*{1,2}|[A-Za-z0-9_:/-]+)(\.(\*{1,2}|[A-Za-z0-9_:/-]+))*$"))
        .examples([serde_json::Value::from("order.*")])
        .into();
    /// `whsec_…`, `whsk_…`, or any text.
    SecretText "SigningSecret" => text()
        .description(Some(
            "For `standard`: `whsec_` and base64 of 24 to 64 bytes. For `standard_ed25519`: `whsk_` and base64 of the 64 bytes of an Ed25519 key \
             (seed and public key) or of its seed. For `hmac` alone: any text, whose UTF-8 is the key; beside others, the text of their secret.",
        ))
        .min_length(Some(1))
        .max_length(Some(256))
        .examples([serde_json::Value::from("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")])
        .into();
    /// `whpk_…`
    PublicKeyText "PublicKey" => text()
        .description(Some("`whpk_` and base64 of the 32 bytes of an Ed25519 public key."))
        .pattern(Some("^whpk_[A-Za-z0-9+/]{43}=$"))
        .examples([serde_json::Value::from("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")])
        .into();
    /// Of a delivery.
    DeliveryStatusText "DeliveryStatus" =>
        names("How a delivery stands. May gain values.", DeliveryStatus::ALL.iter().map(|s| s.as_str()));
    /// Of a delivery that ended.
    EndedStatusText "EndedStatus" => names("How a delivery ended.", ["dead", "delivered", "cancelled"]);
    /// Of an attempt.
    AttemptOutcomeText "AttemptOutcome" =>
        names("What came of one request. May gain values.", AttemptOutcome::ALL.iter().map(|s| s.as_str()));
    /// Of a dead delivery.
    DeadReasonText "DeadReason" =>
        names("Why a delivery failed for good. May gain values.", DeadReason::ALL.iter().map(|s| s.as_str()));
    /// Of a delivery.
    WaitingForText "WaitingFor" => names("What a delivery waits for. May gain values.", WAITING_FOR);
    /// Of an event.
    EventStatusText "EventStatus" => names(
        "`unrouted`: no destination wanted it; `pending`: some delivery has not ended; `delivered`: all arrived; `failed`: \
         some are dead, none is open; `cancelled`: all were cancelled. A replayed delivery counts by its replay. May gain values.",
        ["unrouted", "pending", "delivered", "failed", "cancelled"],
    );
    /// Of a destination.
    DestinationStateText "DestinationState" => names(
        "`paused`: its deliveries wait until it is resumed; `disabled`: it gets no new deliveries, and what waits, waits.",
        ["active", "paused", "disabled"],
    );
    /// Of a destination.
    GuaranteeText "Guarantee" => names(
        "`at_least_once`: sent until it arrives, twice where a crash or a lost answer made that unavoidable; `at_most_once`: one \
         request, whatever comes of it.",
        ["at_least_once", "at_most_once"],
    );
    /// Of a destination.
    OrderingText "Ordering" => names(
        "`none`: deliveries are sent as soon as they can be; `key`: those with the same key one after the other, in the order of \
         acceptance.",
        ["none", "key"],
    );
    /// Of a destination.
    OnDeadText "OrderingOnDead" => names(
        "`continue`: the next of the lane is sent; `block`: the lane waits until the dead letter is replayed or discarded.",
        ["continue", "block"],
    );
    /// Of a destination.
    CircuitStateText "CircuitStateName" => names("Where a circuit is.", ["closed", "open", "half_open"]);
    /// Of a replay job.
    ReplayStateText "ReplayState" => names("How far a replay job is. May gain values.", ["running", "completed", "cancelled"]);
}
