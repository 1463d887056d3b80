//! Replay jobs: each gets its step in turn. How large that may be by its rate the store knows, since others take steps, too.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::counter;
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
}

impl Replays {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>, due: &Arc<Notify>) -> Self {
        Self { needs: needs.clone(), settings: Arc::clone(settings), due: Arc::clone(due) }
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
        let chunk = self.settings.replay_chunk;
        let mut at_once = false;
        let mut failure = None;
        for replay in open {
            // One that fails each time (a selection too large to count) must not keep those after it from going on.
            let (created, goes_on) = match self.needs.schedule.step_replay(replay.id, chunk).await {
                Ok(stepped) => stepped,
                Err(error) => {
                    tracing::debug!(replay.id = %replay.id, %error, "a step of a replay failed");
                    failure.get_or_insert(error);
                    continue;
                }
            };
            if created > 0 {
                counter!(names::REPLAYED).increment(created as u64);
                self.due.notify_one();
            }
            // One with a rate saves up meanwhile, so that it is not asked for each single delivery.
            at_once |= goes_on && (replay.rate_per_second.is_none() || created == 0 || created >= chunk);
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(if at_once { Again::Now } else { Again::Later }),
        }
    }
}
