//! What a producer is told.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use signalpost_core::{Event, EventId, Timestamp};
use signalpost_store::ingest::{EventOutcome, StoredAnswer};

use crate::{
    idempotency,
    problem::{Code, Problem, ProblemBody},
};

/// The answer about one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventAnswer {
    /// Its id; also sent to destinations as `webhook-id`.
    #[schema(value_type = String, example = "evt_01h2e8kqvbfwea724h75qc655w")]
    pub id: EventId,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// How many destinations it goes to.
    pub deliveries: usize,
    /// It was accepted before: this is the answer of then.
    pub duplicate: bool,
}

impl EventAnswer {
    /// Of an event that is accepted for the first time.
    pub fn first(event: &Event, deliveries: usize) -> Bytes {
        let answer = Self {
            id: event.id,
            event_type: event.event_type.clone(),
            created_at: event.created_at(),
            deliveries,
            duplicate: false,
        };
        // Strings and numbers always serialise.
        serde_json::to_vec(&answer).unwrap_or_default().into()
    }
}

/// The answer about a batch.
#[derive(Debug, Serialize, Deserialize)]
struct BatchAnswer {
    accepted: usize,
    rejected: usize,
    results: Vec<Box<RawValue>>,
}

/// The answer about one event of a batch.
pub type ItemResult = Result<Bytes, Problem>;

#[derive(Serialize)]
struct Rejected {
    error: ProblemBody,
}

/// The first answer about an event, as it is given again: with `duplicate: true`.
pub fn as_duplicate(answer: &Bytes) -> Bytes {
    mark(answer).unwrap_or_else(|| answer.clone())
}

fn mark(answer: &[u8]) -> Option<Bytes> {
    let mut parsed: EventAnswer = serde_json::from_slice(answer).ok()?;
    parsed.duplicate = true;
    Some(serde_json::to_vec(&parsed).ok()?.into())
}

/// The first answer about a batch, as it is given again: it and every accepted event with `duplicate: true`.
pub fn batch_as_duplicate(answer: &Bytes) -> Bytes {
    let Ok(mut batch) = serde_json::from_slice::<BatchAnswer>(answer) else {
        return answer.clone();
    };
    for result in &mut batch.results {
        if let Some(marked) = mark(result.get().as_bytes()).and_then(|bytes| raw(&bytes)) {
            *result = marked;
        }
    }
    serde_json::to_vec(&batch).map_or_else(|_| answer.clone(), |body| idempotency::as_duplicate(&body.into()))
}

fn raw(bytes: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(bytes.to_vec()).ok()?).ok()
}

/// What an outcome means for the producer of an event, given its first answer.
pub fn result_of(outcome: &EventOutcome, first: &Bytes) -> ItemResult {
    match outcome {
        EventOutcome::Accepted => Ok(first.clone()),
        EventOutcome::Duplicate(answer) => Ok(as_duplicate(answer)),
        EventOutcome::UidConflict => Err(uid_conflict()),
    }
}

/// 422.
pub fn uid_conflict() -> Problem {
    Problem::new(Code::UidConflict, "An event with this uid and source was accepted before, with other content.")
}

/// The answer of a request with one event.
pub fn single(result: &ItemResult) -> StoredAnswer {
    match result {
        Ok(body) => StoredAnswer { status: StatusCode::ACCEPTED.as_u16(), body: body.clone() },
        Err(problem) => StoredAnswer {
            status: problem.code.status().as_u16(),
            body: serde_json::to_vec(&problem.body(None)).unwrap_or_default().into(),
        },
    }
}

/// The answer of a batch: 202 where all were accepted, 207 where some, 422 where none.
pub fn batch(results: &[ItemResult]) -> StoredAnswer {
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    let rejected = results.len() - accepted;
    let status = match (accepted, rejected) {
        (_, 0) => StatusCode::ACCEPTED,
        (0, _) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::MULTI_STATUS,
    };
    let results = results
        .iter()
        .filter_map(|result| match result {
            Ok(answer) => raw(answer),
            Err(problem) => serde_json::value::to_raw_value(&Rejected { error: problem.body(None) }).ok(),
        })
        .collect();
    let body = serde_json::to_vec(&BatchAnswer { accepted, rejected, results }).unwrap_or_default();
    StoredAnswer { status: status.as_u16(), body: body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_marked_where_it_was_accepted() {
        let answer = EventAnswer {
            id: EventId::floor(Timestamp::from_millis(1)),
            event_type: "a".to_owned(),
            created_at: Timestamp::from_millis(1),
            deliveries: 2,
            duplicate: false,
        };
        let accepted = Bytes::from(serde_json::to_vec(&answer).unwrap());
        let stored = batch(&[Ok(accepted.clone()), Err(uid_conflict())]);
        assert_eq!(stored.status, 207);
        let marked: serde_json::Value = serde_json::from_slice(&batch_as_duplicate(&stored.body)).unwrap();
        assert_eq!((&marked["accepted"], &marked["duplicate"]), (&1.into(), &true.into()));
        assert_eq!(marked["results"][0]["duplicate"], true);
        assert_eq!(marked["results"][0]["deliveries"], 2);
        assert_eq!(marked["results"][1]["error"]["code"], "uid_conflict");
        assert_eq!(batch(&[Ok(accepted)]).status, 202);
        assert_eq!(batch(&[Err(uid_conflict())]).status, 422);
    }
}
