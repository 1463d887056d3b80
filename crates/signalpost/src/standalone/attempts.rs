//! A line per attempt, for the terminal of `dev`.

use std::sync::Arc;

use signalpost_core::AttemptOutcome;
use signalpost_dispatcher::{AttemptReport, Observer};
use signalpost_receiver::Verdict;

use crate::{
    inbox::Inbox,
    terminal::{Printer, short},
};

/// Prints every attempt, and for those that went to the inbox what it thought of their signature.
pub struct Attempts {
    printer: Arc<Printer>,
    inbox: Inbox,
}

impl Attempts {
    pub fn new(printer: Arc<Printer>, inbox: Inbox) -> Self {
        Self { printer, inbox }
    }
}

impl Observer for Attempts {
    fn attempted(&self, report: &AttemptReport) {
        let verdict = self.inbox.verdict(&report.delivery_id.to_string(), report.attempt);
        self.printer.print(line(report, verdict.as_ref()));
    }
}

/// `order.created → inbox 200 in 3 ms, signature ok`
fn line(report: &AttemptReport, verdict: Option<&Verdict>) -> String {
    let name = if report.destination_name.is_empty() {
        report.destination_id.to_string()
    } else {
        report.destination_name.clone()
    };
    let answer = match (report.status_code, &report.error) {
        (Some(code), None) => code.to_string(),
        (Some(code), Some(error)) => format!("{code} ({error})"),
        (None, Some(error)) => format!("no answer ({error})"),
        (None, None) => "no answer".to_owned(),
    };
    let mut line = format!("{} → {name} {answer} in {}", report.event_type, short(report.duration));
    if let Some(verdict) = verdict {
        line.push_str(&format!(", {verdict}"));
    }
    let of = report.max_attempts.map_or_else(String::new, |most| format!(" of {most}"));
    let attempt = format!("attempt {}{of}", report.attempt);
    match (report.outcome, report.next_in) {
        (AttemptOutcome::Delivered, _) if report.attempt == 1 => {}
        (AttemptOutcome::Delivered, _) => line.push_str(&format!(" ({attempt})")),
        (_, Some(next)) => line.push_str(&format!(": {attempt}, next in {}", short(next))),
        (_, None) => line.push_str(&format!(": {attempt}, dead; see /v1/dead-letters")),
    }
    line
}
