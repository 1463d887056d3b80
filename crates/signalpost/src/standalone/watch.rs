//! Tells in the terminal of `dev` what happens to destinations besides attempts: circuits that open and close, and
//! destinations that are paused, disabled and resumed. It looks once a second, so what comes and goes in between is not told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use signalpost_core::{CircuitState, Destination, DestinationId, DestinationState, TenantId};
use signalpost_runtime::Shutdown;
use signalpost_store::{Store, read::Page};

use crate::terminal::Printer;

const EVERY: Duration = Duration::from_secs(1);

/// The most destinations that are watched: `dev` is for trying.
const MOST: usize = 1_000;

/// What was seen last of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: DestinationState,
    circuit: CircuitState,
    trips: u32,
}

impl Seen {
    /// One that was made since the last look.
    const NEW: Self = Self { state: DestinationState::Active, circuit: CircuitState::Closed, trips: 0 };

    fn of(destination: &Destination) -> Self {
        Self { state: destination.state, circuit: destination.circuit.state, trips: destination.circuit.trips }
    }
}

/// Looks until it is told to stop. A store that is away is looked at again.
pub async fn run(store: Arc<dyn Store>, printer: Arc<Printer>, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut known: Option<BTreeMap<DestinationId, Seen>> = None;
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            biased;
            () = shutdown.draining() => return Ok(()),
            _ = tick.tick() => {}
        }
        let page = Page { limit: MOST, after: None, descending: true };
        let Ok(destinations) = store.list_destinations(TenantId::DEFAULT, None, page).await else { continue };
        if let Some(known) = &known {
            for destination in &destinations {
                let before = known.get(&destination.id).copied().unwrap_or(Seen::NEW);
                for line in told(before, destination) {
                    printer.print(line);
                }
            }
        }
        known = Some(destinations.iter().map(|destination| (destination.id, Seen::of(destination))).collect());
    }
}

/// What changed, a line each.
fn told(before: Seen, now: &Destination) -> Vec<String> {
    let name = if now.spec.name.is_empty() { now.id.to_string() } else { now.spec.name.clone() };
    let mut lines = Vec::new();
    let circuit = &now.circuit;
    if (before.circuit, before.trips) != (circuit.state, circuit.trips) {
        let reason = circuit.reason.as_deref().unwrap_or("it failed");
        match circuit.state {
            CircuitState::Open => lines.push(format!(
                "{name}: circuit open: {reason}; nothing is sent there until probes show that it is back"
            )),
            CircuitState::HalfOpen => lines.push(format!("{name}: circuit half open: a few deliveries go, to try")),
            CircuitState::Closed => lines.push(format!("{name}: circuit closed; it takes deliveries again")),
        }
    }
    if before.state != now.state {
        let resume = format!("POST /v1/destinations/{}/resume", now.id);
        match now.state {
            DestinationState::Active => lines.push(format!("{name}: active again")),
            DestinationState::Paused => lines.push(format!("{name}: paused; what comes waits for {resume}")),
            DestinationState::Disabled => {
                let reason = now.disabled_reason.as_deref().unwrap_or("no reason was given");
                lines.push(format!("{name}: disabled: {reason}; {resume} makes it active again"));
            }
            DestinationState::Deleted => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use signalpost_core::{CircuitRecord, Kept, Timestamp};

    use super::*;

    fn destination(state: DestinationState, circuit: CircuitState, trips: u32) -> Destination {
        Destination {
            id: DestinationId::floor(Timestamp::from_millis(1)),
            tenant_id: TenantId::DEFAULT,
            uid: None,
            spec: serde_json::from_value(json!({"name": "crm", "url": "https://a.example/", "event_types": ["*"]}))
                .unwrap(),
            secrets: Kept::plain("whsec_x"),
            state,
            disabled_reason: (state == DestinationState::Disabled).then(|| "it answered 410".to_owned()),
            circuit: CircuitRecord {
                state: circuit,
                since: None,
                trips,
                reason: (circuit == CircuitState::Open).then(|| "5 failures in a row".to_owned()),
            },
            version: 1,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    #[test]
    fn what_changed_is_told_once() {
        use CircuitState::{Closed, HalfOpen, Open};
        use DestinationState::{Active, Disabled, Paused};
        for (before, now, begins) in [
            ((Active, Closed, 0), (Active, Closed, 0), vec![]),
            ((Active, Closed, 0), (Active, Open, 1), vec!["crm: circuit open: 5 failures in a row; "]),
            ((Active, Open, 1), (Active, Open, 1), vec![]),
            ((Active, Open, 1), (Active, Open, 2), vec!["crm: circuit open: "]),
            ((Active, Open, 1), (Active, HalfOpen, 1), vec!["crm: circuit half open: "]),
            ((Active, HalfOpen, 1), (Active, Closed, 1), vec!["crm: circuit closed; "]),
            ((Active, Closed, 0), (Paused, Closed, 0), vec!["crm: paused; "]),
            ((Paused, Open, 1), (Active, Closed, 1), vec!["crm: circuit closed; ", "crm: active again"]),
            ((Active, Open, 1), (Disabled, Open, 1), vec!["crm: disabled: it answered 410; "]),
        ] {
            let of = |(state, circuit, trips)| destination(state, circuit, trips);
            let lines = told(Seen::of(&of(before)), &of(now));
            assert_eq!(lines.len(), begins.len(), "{lines:?}");
            for (line, begin) in lines.iter().zip(begins) {
                assert!(line.starts_with(begin), "{line}");
            }
        }
    }
}
