//! Health: is the process alive, can it do its main duty, and what does each dependency say.
//!
//! A service registers its checks in a [`Health`]: required ones, without which it cannot do its main duty, and optional
//! ones, without which it goes on in a lesser way. Checks are asked at most twice a second, however often somebody asks
//! us, and a check that hangs counts as failed.

mod routes;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
pub use routes::{Access, Operations, alone, router};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer holds.
const FRESH: Duration = Duration::from_millis(500);

type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks of a service. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Health {
    service: &'static str,
    checks: Arc<Vec<Check>>,
    last: Arc<Mutex<Option<(Instant, Report)>>>,
}

struct Check {
    name: &'static str,
    required: bool,
    probe: Probe,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.checks.iter().map(|check| check.name).collect::<Vec<_>>();
        f.debug_struct("Health").field("service", &self.service).field("checks", &names).finish()
    }
}

impl Health {
    /// A service without dependencies; add them with [`Self::required`] and [`Self::optional`].
    pub fn new(service: &'static str) -> Self {
        Self { service, checks: Arc::default(), last: Arc::default() }
    }

    /// Adds a check without which the service is not ready. The error is for the operator.
    #[must_use]
    pub fn required<P, F>(self, name: &'static str, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.with(name, true, probe)
    }

    /// Adds a check without which the service is ready, but degraded.
    #[must_use]
    pub fn optional<P, F>(self, name: &'static str, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.with(name, false, probe)
    }

    fn with<P, F>(self, name: &'static str, required: bool, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let probe: Probe = Arc::new(move || probe().boxed());
        let mut checks =
            Arc::try_unwrap(self.checks).unwrap_or_else(|shared| shared.iter().map(Check::copy).collect::<Vec<_>>());
        checks.push(Check { name, required, probe });
        Self { service: self.service, checks: Arc::new(checks), last: Arc::default() }
    }

    /// Asks every check, all at once; or tells what they said less than half a second ago.
    pub async fn report(&self) -> Report {
        // Held while asking: those who come meanwhile wait for this answer instead of asking again.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let answers = futures::future::join_all(self.checks.iter().map(Check::ask)).await;
        let report = Report::of(self.service, answers);
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

impl Check {
    fn copy(&self) -> Self {
        Self { name: self.name, required: self.required, probe: Arc::clone(&self.probe) }
    }

    async fn ask(&self) -> (&'static str, Dependency) {
        let error = match tokio::time::timeout(CHECK_TIMEOUT, (self.probe)()).await {
            Ok(answer) => answer.err(),
            Err(_) => Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
        };
        (self.name, Dependency { ok: error.is_none(), required: self.required, error })
    }
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst that a dependency brings about.
    pub status: Status,
    /// Which service.
    pub service: &'static str,
    /// By name.
    pub dependencies: BTreeMap<&'static str, Dependency>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything is there.
    Ok,
    /// An optional dependency is missing: it goes on in a lesser way.
    Degraded,
    /// A required dependency is missing: it cannot do its main duty.
    Unavailable,
}

/// How one dependency is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// It answered.
    pub ok: bool,
    /// The service cannot do its main duty without.
    pub required: bool,
    /// What is wrong, for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    fn of(service: &'static str, answers: Vec<(&'static str, Dependency)>) -> Self {
        let status = if answers.iter().any(|(_, d)| d.required && !d.ok) {
            Status::Unavailable
        } else if answers.iter().any(|(_, d)| !d.ok) {
            Status::Degraded
        } else {
            Status::Ok
        };
        Self { status, service, dependencies: answers.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn failing() -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Err("away".to_owned()))
    }

    fn fine() -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_required_check_makes_it_unavailable() {
        let health = Health::new("api").required("store", fine).optional("bus", fine);
        assert_eq!(health.report().await.status, Status::Ok);
        let health = Health::new("api").required("store", fine).optional("bus", failing);
        assert_eq!(health.report().await.status, Status::Degraded);
        let health = Health::new("api").required("store", failing).optional("bus", failing);
        let report = health.report().await;
        assert_eq!(report.status, Status::Unavailable);
        assert_eq!(report.dependencies["store"].error.as_deref(), Some("away"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let health = Health::new("api").optional("limits", std::future::pending::<Result<(), String>>);
        let report = health.report().await;
        assert_eq!(report.status, Status::Degraded);
        assert_eq!(report.dependencies["limits"].error.as_deref(), Some("no answer within 2 s"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_half_a_second() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let health = Health::new("api").required("store", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            fine()
        });
        for _ in 0..10 {
            health.report().await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::advance(FRESH).await;
        health.report().await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
