//! Replay jobs: each gets its step in turn, as large as its rate allows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::counter;
use signalpost_core::ReplayId;
use signalpost_store::schedule::OpenReplay;
use signalpost_telemetry::names;
use tokio::sync::Notify;

use crate::{
    Needs, Settings,
    job::{Again, Job, JobError},
};

pub(crate) struct Replays {
    needs: Needs,
    settings: Arc<Settings>,
    due: Arc<Notify>,
    /// Of the jobs that have a rate. Ordered, so that one history gives one sequence of calls.
    allowances: BTreeMap<ReplayId, Allowance>,
}

impl Replays {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>, due: &Arc<Notify>) -> Self {
        let allowances = BTreeMap::new();
        Self { needs: needs.clone(), settings: Arc::clone(settings), due: Arc::clone(due), allowances }
    }

    /// How many deliveries a job may create now.
    fn allowed(&mut self, replay: &OpenReplay) -> usize {
        let chunk = self.settings.replay_chunk;
        let Some(rate) = replay.rate_per_second else { return chunk };
        let now = self.needs.clock.elapsed();
        self.allowances.entry(replay.id).or_insert_with(|| Allowance::new(now)).at(now, rate).min(chunk)
    }
}

#[async_trait]
impl Job for Replays {
    const NAME: &'static str = "replays";

    fn interval(&self) -> Duration {
        self.settings.replay_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let open = self.needs.schedule.open_replays().await?;
        self.allowances.retain(|id, _| open.iter().any(|replay| replay.id == *id));
        let mut at_once = false;
        let mut failure = None;
        for replay in open {
            let most = self.allowed(&replay);
            if most == 0 {
                continue;
            }
            // One that fails each time (a selection too large to count) must not keep those after it from going on.
            let (created, goes_on) = match self.needs.schedule.step_replay(replay.id, most).await {
                Ok(stepped) => stepped,
                Err(error) => {
                    tracing::debug!(replay.id = %replay.id, %error, "a step of a replay failed");
                    failure.get_or_insert(error);
                    continue;
                }
            };
            if let Some(allowance) = self.allowances.get_mut(&replay.id) {
                allowance.spend(created);
            }
            if created > 0 {
                counter!(names::REPLAYED).increment(created as u64);
                self.due.notify_one();
            }
            at_once |= goes_on && replay.rate_per_second.is_none();
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(if at_once { Again::Now } else { Again::Later }),
        }
    }
}

/// What a job with a rate has saved up: at most a second's worth.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    tokens: f64,
    at: Duration,
}

impl Allowance {
    /// Enough for one: so that a job is begun, and counted, at once.
    const fn new(now: Duration) -> Self {
        Self { tokens: 1.0, at: now }
    }

    fn at(&mut self, now: Duration, rate: f64) -> usize {
        let gained = now.saturating_sub(self.at).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(rate.max(1.0));
        self.at = now;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
        let whole = self.tokens as usize;
        whole
    }

    fn spend(&mut self, created: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a chunk is small")]
        let created = created as f64;
        self.tokens -= created;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_keeps_its_rate_and_never_saves_more_than_a_second() {
        for rate in [0.1, 3.0, 40.0, 1000.0] {
            let mut allowance = Allowance::new(Duration::ZERO);
            let mut created = 0;
            for tick in 1..=1200 {
                let now = Duration::from_millis(tick * 100);
                let now_allowed = allowance.at(now, rate);
                allowance.spend(now_allowed);
                created += now_allowed;
            }
            #[allow(clippy::cast_precision_loss)]
            let (created, expected) = (created as f64, 120.0 * rate);
            assert!((expected - 1.0..=expected + 1.0).contains(&created), "{rate}: {created}");
            let after_an_hour = allowance.at(Duration::from_secs(3600), rate);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let second = rate.max(1.0) as usize;
            assert_eq!(after_an_hour, second);
        }
    }
}
