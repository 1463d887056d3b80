//! `/v1/destinations/{id}/secret/rotate`: another signing secret, without a moment in which receivers know none that fits.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use signalpost_core::{Destination, secret::Secret};
use signalpost_sender::signatures;

use super::{
    destination::secrets,
    destinations::{TRIES, contended, open, replace},
    fields::{Fields, Violations},
    named::Named as _,
    post::{self, Input},
    views::destination::{RotateInput, SecretBody},
};
use crate::{
    audit::{self, Change},
    auth::DestinationsWrite,
    idempotency::Answer,
    json::Body,
    problem::Problem,
    state::AppState,
};

/// How long the old secret signs too, where nothing is said.
const OVERLAP_SECONDS: u64 = 86_400;
/// The longest.
const MOST_SECONDS: u64 = 7 * 86_400;

/// Replaces the signing secret of a destination
///
/// With the schemes `standard` and `standard_ed25519` the old secret signs too until the overlap is over, so that receivers may change at any
/// moment of it. A header of the scheme `hmac` holds one signature, that of the new secret: its receiver should know both before.
#[utoipa::path(
    post, path = "/v1/destinations/{id}/secret/rotate", tag = "destinations", operation_id = "rotateDestinationSecret",
    params(("id" = String, Path, description = "Its id, or its `uid`.")),
    request_body = Option<RotateInput>,
    responses((status = 200, description = "The secret that signs from now on.", body = SecretBody)),
    security(("bearer" = ["destinations:write"])),
)]
pub async fn rotate(
    State(state): State<AppState>,
    caller: DestinationsWrite,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (at, by) = (state.clone(), caller.0.clone());
    post::once(&state, &caller, body, |input| async move {
        let destination = Destination::find(&at, by.tenant.id, &name).await?;
        let asked = Asked::read(input)?;
        asked.check(&destination)?;
        let change = Change::new("destination.rotate_secret", destination.id).before(&destination.shown());
        let within = at.clone();
        audit::change(&at, &by, change, async move { turn(&within, destination, asked).await }).await
    })
    .await
}

struct Asked {
    overlap: Duration,
    secret: Option<Secret>,
}

impl Asked {
    fn read(input: Input) -> Result<Self, Problem> {
        let members = input.object_if_any()?;
        let mut violations = Violations::default();
        let mut fields = Fields::new(&members, "", &mut violations);
        let overlap = fields.integer("overlap_seconds", 0..=MOST_SECONDS).unwrap_or(OVERLAP_SECONDS);
        let secret = fields.parsed("secret", |text| signatures::check(&[], text).map(|()| Secret::new(text)));
        fields.finish(&[]);
        violations.or(Self { overlap: Duration::from_secs(overlap), secret })
    }

    /// Whether the given secret can sign with the schemes of that destination.
    fn check(&self, destination: &Destination) -> Result<(), Problem> {
        let Some(given) = &self.secret else { return Ok(()) };
        signatures::check(&destination.spec.signatures, given.reveal())
            .map_err(|error| Problem::invalid_at("/secret", error.to_string()))
    }
}

async fn turn(state: &AppState, mut current: Destination, asked: Asked) -> Result<Answer, Problem> {
    for _ in 0..TRIES {
        asked.check(&current)?;
        let before = open(state, &current)?;
        let now = state.ports.clock.now();
        let new = match &asked.secret {
            Some(given) if *given == before.current => {
                return Err(Problem::invalid_at("/secret", "is the secret that signs already"));
            }
            Some(given) => given.clone(),
            None => signatures::make(&current.spec.signatures, &*state.ports.entropy),
        };
        let after = secrets::rotate(&before, new, now, now + asked.overlap);
        if let Some(destination) = replace(state, &current, &current.spec, &before, &after).await? {
            let body = SecretBody::new(&open(state, &destination)?, now);
            return Ok(Answer::json(StatusCode::OK, &body)?.with_secret());
        }
        current = Destination::find(state, current.tenant_id, &current.id.to_string()).await?;
    }
    Err(contended())
}
