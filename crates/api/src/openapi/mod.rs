//! The document that describes the API, and the page to browse it.
//!
//! Routes tell what is their own (`#[utoipa::path]`); what is the same everywhere is added here: problems, by what a route
//! takes and does, `Idempotency-Key` on every POST, keys, tags. `docs/openapi.json` is the committed copy; a test holds
//! it to this.

pub mod operations;
pub mod params;
pub mod types;

use axum::{
    Router,
    response::{Html, IntoResponse},
    routing::get,
};
use bytes::Bytes;
use http::header;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        Components, Content, Header, HttpMethod, Info, License, OpenApi, Ref, RefOr, Required, Response, Schema,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        schema::{AllOfBuilder, ObjectBuilder, Type},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    html,
    problem::{self, FieldError, ProblemBody},
    state::AppState,
};

const DESCRIPTION: &str = "Accepts events and delivers each one, signed, to every webhook destination that wants it.

Ids are TypeIDs, times RFC 3339 in UTC. Answers may gain fields and enum values; clients ignore what they do not know. An \
unknown field in a request body is 422.

Every error is `application/problem+json` (RFC 9457) with a stable `code` and the `request_id`; 422 lists each breach of a \
rule with a JSON Pointer.

Every POST takes an `Idempotency-Key`: a repetition gets the first answer, with \
`duplicate: true` in it and the header `Idempotency-Replayed: true`. 503 \
means that the outcome is unknown: send it again with the key.

A key comes in `Authorization: Bearer <key>` or in `X-Api-Key: <key>`. A tenant's key (`sp_…`) acts in its tenant, within its scopes: what an \
operation asks for stands with its security. An operator's key has all scopes, and acts in the tenant `default`, or in the one that the header \
`Signalpost-Tenant` names.";

const TAGS: [(&str, &str); 9] = [
    ("events", "What producers post, and what became of it."),
    ("deliveries", "One event bound for one destination each."),
    ("attempts", "The HTTP requests that were made for deliveries."),
    ("destinations", "URLs that want events."),
    ("dead letters", "Deliveries that failed for good, until they are replayed or discarded."),
    ("replays", "Jobs that send past deliveries again."),
    ("tenants", "Isolated customers, and their keys. For operators."),
    ("audit log", "Who changed what."),
    ("operations", "For those who run it."),
];

/// The name of a schema.
const REPETITION: &str = "Repetition";

/// Adds what the routes do not tell by themselves.
pub fn complete(mut document: OpenApi) -> OpenApi {
    let mut info = Info::new("Signalpost API", env!("CARGO_PKG_VERSION"));
    info.description = Some(DESCRIPTION.to_owned());
    let mut license = License::new("MIT");
    license.identifier = Some("MIT".to_owned());
    info.license = Some(license);
    document.info = info;
    document.tags = Some(TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build()).into());
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            describe(path, &method, operation);
        }
    }
    let components = document.components.get_or_insert_default();
    add_components(components);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, item.get.as_mut()),
        (HttpMethod::Post, item.post.as_mut()),
        (HttpMethod::Put, item.put.as_mut()),
        (HttpMethod::Patch, item.patch.as_mut()),
        (HttpMethod::Delete, item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

/// What follows from the method, the path and the body of an operation.
fn describe(path: &str, method: &HttpMethod, operation: &mut Operation) {
    let is_api = path.starts_with("/v1/");
    let is_post = *method == HttpMethod::Post;
    let takes_body = is_post || operation.request_body.is_some();
    let parameters = operation.parameters.get_or_insert_default();
    let is_list = parameters.iter().any(|parameter| named(parameter, "cursor"));
    if !is_api {
        return;
    }
    parameters.retain(|parameter| !named(parameter, "Idempotency-Key") && !named(parameter, "Signalpost-Tenant"));
    if is_post {
        parameters.push(RefOr::Ref(Ref::new("#/components/parameters/IdempotencyKey")));
    }
    let scope = scope(operation.security.as_deref());
    let parameters = operation.parameters.get_or_insert_default();
    if scope.is_some() {
        parameters.push(RefOr::Ref(Ref::new("#/components/parameters/Tenant")));
    }
    operation.security = Some(vec![
        SecurityRequirement::new("bearer", scope.as_slice()),
        SecurityRequirement::new("apiKey", scope.as_slice()),
    ]);
    let forbidden = match &scope {
        Some(scope) => format!("The key has not the scope `{scope}`."),
        None => "The key is not an operator's.".to_owned(),
    };
    let registers = is_post && path == "/v1/tenants";
    let takes_events = is_post && matches!(path, "/v1/events" | "/v1/events/batch");
    for (applies, status, text) in [
        (
            is_list || takes_body || path.contains('{'),
            "400",
            "The query is bad, the path cannot be read, or the body is not JSON.",
        ),
        (true, "401", "The key is missing, not known, or has expired."),
        (true, "403", forbidden.as_str()),
        (true, "404", "There is no such thing, or it is another tenant's; or there is no such tenant."),
        (
            path.ends_with("/cancel") && path.contains("deliveries"),
            "409",
            "A request is out (`in_flight`), or it has ended (`already_ended`).",
        ),
        (path.ends_with("/retry"), "409", "A request is out (`in_flight`), or what to send is gone (`gone`)."),
        (path.ends_with("/dead-letters/{id}/replay"), "409", "What to send is gone (`gone`)."),
        (is_post && path == "/v1/destinations", "409", "The `uid` is taken (`uid_taken`)."),
        (takes_body, "408", "The body did not arrive in time."),
        (takes_body, "413", "The body is too large."),
        (takes_body, "415", "The content type is not one that is taken here."),
        (registers, "409", "Another tenant has the slug (`slug_taken`)."),
        (
            path.starts_with("/v1/tenants/") && method != &HttpMethod::Get,
            "409",
            "The tenant is being deleted, or cannot be.",
        ),
        (registers, "429", "Too many tenants were registered from this address; see `Retry-After`."),
        (takes_events, "429", "The tenant's quota of events per second is used up; see `Retry-After`."),
        (takes_body, "422", "The body breaks a rule; or the key was used with another body (`idempotency_mismatch`)."),
        (true, "500", "A bug of ours."),
        (true, "503", "Unavailable: the outcome is not known. `Retry-After` tells when to ask again."),
    ] {
        if applies {
            operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem_response(text)));
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.content.values_mut().for_each(without_null);
    }
    // The answer about one event tells of itself whether it is a duplicate.
    let may_be_repeated = is_post && path != "/v1/events";
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if may_be_repeated && let Some(content) = response.content.get_mut("application/json") {
            with_duplicate(content);
        }
        if status.starts_with('4') || status.starts_with('5') {
            // Also where a route answers in its own form (a batch of which nothing was accepted).
            response.content.entry(problem::MEDIA_TYPE.to_owned()).or_insert_with(problem_content);
        }
        let (name, text, of_type) = match status.as_str() {
            "201" => ("Location", "The path of what was created.", Type::String),
            "405" => ("Allow", "The methods that this address knows.", Type::String),
            "429" | "503" => ("Retry-After", "In seconds.", Type::Integer),
            _ => continue,
        };
        let mut described = Header::new(ObjectBuilder::new().schema_type(of_type).build());
        described.description = Some(text.to_owned());
        response.headers.insert(name.to_owned(), RefOr::T(described));
    }
}

/// The scope that a route asks for, as its own description has it; none: it is the operator's.
fn scope(security: Option<&[SecurityRequirement]>) -> Option<String> {
    let requirement = serde_json::to_value(security?.first()?).ok()?;
    Some(requirement.get("bearer")?.get(0)?.as_str()?.to_owned())
}

fn named(parameter: &RefOr<Parameter>, name: &str) -> bool {
    matches!(parameter, RefOr::T(parameter) if parameter.name == name)
}

fn problem_response(text: &str) -> Response {
    let mut response = Response::new(text);
    response.content.insert(problem::MEDIA_TYPE.to_owned(), problem_content());
    response
}

fn problem_content() -> RefOr<Content> {
    Content::new(Some(Ref::from_schema_name("Problem"))).into()
}

/// What a repetition of a request has besides.
fn with_duplicate(content: &mut RefOr<Content>) {
    let RefOr::T(content) = content else { return };
    if let Some(schema) = content.schema.take() {
        let both = AllOfBuilder::new().item(schema).item(Ref::from_schema_name(REPETITION));
        content.schema = Some(RefOr::T(both.build().into()));
    }
}

/// A body that may be left out is described as one that may be `null`, which it may not.
fn without_null(content: &mut RefOr<Content>) {
    let RefOr::T(content) = content else { return };
    let Some(RefOr::T(Schema::OneOf(either))) = &content.schema else { return };
    let only = either.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
    if let (Some(only), 2) = (only, either.items.len()) {
        content.schema = Some(only);
    }
}

fn add_components(components: &mut Components) {
    let mut schemas = vec![(ProblemBody::name().into_owned(), ProblemBody::schema())];
    ProblemBody::schemas(&mut schemas);
    schemas.push((FieldError::name().into_owned(), FieldError::schema()));
    let duplicate = ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .description(Some("The request was made before with this `Idempotency-Key`: this is the answer of then."));
    schemas.push((REPETITION.to_owned(), ObjectBuilder::new().property("duplicate", duplicate).into()));
    for (name, schema) in schemas {
        components.schemas.insert(name, schema);
    }
    let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let key = header(
        "Idempotency-Key",
        "1 to 255 visible ASCII characters, quotes optional. The same key and body give the first answer; another body is 422.",
        text().max_length(Some(257)).pattern(Some(r#"^("[!-~]{1,255}"|[!#-~][!-~]{0,254})$"#)),
    );
    let tenant = header("Signalpost-Tenant", "The id or slug of the tenant to act in; default: `default`.", text());
    components.parameters.insert("IdempotencyKey".to_owned(), RefOr::T(key));
    components.parameters.insert("Tenant".to_owned(), RefOr::T(tenant));
    components.security_schemes.insert(
        "bearer".to_owned(),
        RefOr::T(SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())),
    );
    components
        .security_schemes
        .insert("apiKey".to_owned(), RefOr::T(SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Api-Key")))));
}

fn header(name: &str, text: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(RefOr::T(Schema::from(schema.build()))))
        .build()
}

/// The document as its committed copy has it.
///
/// # Errors
/// None in practice: it is plain data.
pub fn to_text(document: &OpenApi) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}

/// `/openapi.json` and `/docs`.
pub fn routes(document: OpenApi) -> Router<AppState> {
    // Plain data with string keys always serialises; where it did not, the stale test of the committed copy would tell.
    let text = Bytes::from(to_text(&document).unwrap_or_default());
    let json = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    Router::new().route("/openapi.json", get(json)).route("/docs", get(page))
}

async fn page() -> impl IntoResponse {
    ([html::POLICY], Html(include_str!("page.html")))
}
