//! Writing the audit log: every change by a key, but for the events that it posts.
//!
//! An entry is written before its change, and what came of it after: no change is without an entry. The change goes on where the
//! client hangs up. An entry without an outcome tells of a change that is under way, or whose process died, so that it may or may not
//! have happened. Reading is in `manage::audit_log`.

use std::future::Future;

use serde::Serialize;
use serde_json::Value;
use signalpost_core::{AuditEntry, AuditId, AuditOutcome, TenantId};
use tracing::Instrument as _;

use crate::{auth::Caller, idempotency::Answer, problem::Problem, state::AppState};

/// Members of answers that hold a secret or a key. An answer that has any says so ([`Answer::secret`]).
const SECRET: [&str; 2] = ["secret", "key"];

/// What stands for a secret.
pub const MASK: &str = "***";

/// What is about to be changed.
#[derive(Debug)]
pub struct Change {
    action: &'static str,
    target: String,
    before: Option<Value>,
    tenant: Option<TenantId>,
}

impl Change {
    /// This is done to what has this id; an empty one is told by the answer.
    pub fn new(action: &'static str, target: impl ToString) -> Self {
        Self { action, target: target.to_string(), before: None, tenant: None }
    }

    /// How it is now, as the API shows it: without secrets.
    #[must_use]
    pub fn before(self, shown: &impl Serialize) -> Self {
        Self { before: serde_json::to_value(shown).ok(), ..self }
    }

    /// In the log of that tenant, not of the one that the caller acts in.
    #[must_use]
    pub fn in_tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }
}

/// Makes a change, and keeps who made it.
///
/// # Errors
/// Those of the work; 503 where the entry cannot be written: then nothing was done.
pub async fn change<F>(state: &AppState, caller: &Caller, change: Change, work: F) -> Result<Answer, Problem>
where
    F: Future<Output = Result<Answer, Problem>> + Send + 'static,
{
    let ports = &state.ports;
    let entry = AuditEntry {
        id: AuditId::new(ports.clock.now(), &*ports.entropy),
        tenant_id: change.tenant.unwrap_or(caller.tenant.id),
        actor: caller.who.actor(),
        action: change.action.to_owned(),
        target: change.target,
        address: caller.address,
        request_id: caller.request_id.to_string(),
        before: change.before,
        outcome: None,
    };
    let at = state.clone();
    let changed = async move {
        at.ports.store.begin_audit(&entry).await?;
        let result = work.await;
        let (target, outcome) = outcome(&result);
        let target = target.filter(|_| entry.target.is_empty());
        let ended = at.ports.store.end_audit(entry.tenant_id, entry.id, target.as_deref(), &outcome).await;
        if let Err(error) = ended {
            tracing::warn!(%error, audit.id = %entry.id, "what came of a change is not in the audit log");
        }
        result
    };
    match tokio::spawn(changed.instrument(tracing::Span::current())).await {
        Ok(result) => result,
        Err(panic) => Err(Problem::internal(&panic)),
    }
}

/// What came of it, and the id of what it created.
fn outcome(result: &Result<Answer, Problem>) -> (Option<String>, AuditOutcome) {
    match result {
        Ok(answer) => {
            let mut after: Option<Value> = serde_json::from_slice(&answer.body).ok();
            after.as_mut().into_iter().for_each(|after| clean(after, answer.secret));
            let id = after.as_ref().and_then(|after| Some(after.get("id")?.as_str()?.to_owned()));
            (id, AuditOutcome { status: answer.status.as_u16(), after })
        }
        Err(problem) => (None, AuditOutcome { status: problem.code.status().as_u16(), after: None }),
    }
}

/// Masks what is secret, and takes out what PostgreSQL cannot keep: NUL, which may stand in what a receiver answered.
fn clean(value: &mut Value, is_secret: bool) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if is_secret && SECRET.contains(&name.as_str()) && member.is_string() {
                    *member = MASK.into();
                } else {
                    clean(member, is_secret);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, is_secret)),
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::problem::Code;

    #[test]
    fn an_outcome_holds_no_secret() {
        let body =
            json!({"tenant": {"id": "ten_1"}, "key": "sp_x", "destination": {"id": "dst_1", "secret": "whsec_x"}});
        let answer = Answer::json(StatusCode::CREATED, &body).unwrap().with_secret();
        let (id, outcome) = outcome(&Ok(answer));
        assert_eq!((id, outcome.status), (None, 201));
        let expected =
            json!({"tenant": {"id": "ten_1"}, "key": "***", "destination": {"id": "dst_1", "secret": "***"}});
        assert_eq!(outcome.after, Some(expected));
    }

    #[test]
    fn an_outcome_tells_of_what_was_created_and_of_what_failed() {
        let (id, _) = outcome(&Answer::json(StatusCode::CREATED, &json!({"id": "dst_1", "key": "plain"})));
        assert_eq!(id.as_deref(), Some("dst_1"));
        let (_, kept) = outcome(&Answer::json(StatusCode::OK, &json!({"excerpt": ["a\0b"], "key": "plain"})));
        assert_eq!(kept.after, Some(json!({"excerpt": ["a\u{fffd}b"], "key": "plain"})));
        let (id, outcome) = outcome(&Err(Problem::new(Code::InFlight, "out")));
        assert_eq!((id, outcome), (None, AuditOutcome { status: 409, after: None }));
    }
}
