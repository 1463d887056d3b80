//! What every scenario begins with: a target, a receiver, a ledger, and the clock that they share.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Api,
    epoch::Epoch,
    ledger::{self, Account, Ledger},
    load::{Load, Range},
    receiver::{Behaviour, Receiver},
    target::{Options, Size, Target},
};

/// A scenario that has begun.
#[derive(Debug)]
pub struct Run {
    /// The clock.
    pub epoch: Epoch,
    /// Where deliveries arrive.
    pub receiver: Receiver,
    /// What was posted.
    pub ledger: Arc<Ledger>,
    /// What is measured.
    pub target: Target,
}

/// A destination of a scenario.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its id.
    pub id: String,
    /// The only event type that it wants.
    pub event_type: String,
    /// The number of its path at the receiver.
    pub path: u32,
}

impl Run {
    /// Starts all of it.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(options: &Options, size: Size, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let epoch = Epoch::start();
        let bar = bar("starting", 0);
        let receiver = Receiver::start(epoch).await?;
        let target = Target::start(options, size, env).await?;
        bar.finish_and_clear();
        Ok(Self { epoch, receiver, ledger: Arc::default(), target })
    }

    /// Creates destinations `<name>.0`, `<name>.1`, …, each at a path of its own.
    ///
    /// # Errors
    /// One is refused.
    pub async fn destinations(
        &self,
        api: &Api,
        name: &str,
        count: usize,
        behaviour: Behaviour,
        further: &Value,
    ) -> anyhow::Result<Vec<Destination>> {
        let mut destinations = Vec::with_capacity(count);
        for number in 0..count {
            let path = self.receiver.path(behaviour);
            let event_type = format!("{name}.{number}");
            let id = api.create_destination(&self.receiver.url(path), &event_type, further).await?;
            destinations.push(Destination { id, event_type, path });
        }
        Ok(destinations)
    }

    /// Producers for that many events.
    pub fn load(&self, what: &str, count: usize, workers: usize, patience: Duration) -> Load {
        Load {
            api: self.target.api.clone(),
            epoch: self.epoch,
            ledger: Arc::clone(&self.ledger),
            progress: bar(what, count),
            workers,
            patience,
            stop: CancellationToken::new(),
        }
    }

    /// Waits until that many different events of a range have arrived with 2xx, or `at_most` has passed; the account.
    pub async fn arrived(
        &self,
        range: Range,
        group: impl Fn(u32) -> bool,
        log_from: usize,
        at_most: Duration,
    ) -> Account {
        let until = self.epoch.now() + at_most;
        let posted: Vec<_> = self
            .ledger
            .posted(range.first, range.count)
            .into_iter()
            .filter(|(_, posted)| group(posted.group))
            .collect();
        let bar = bar("arriving", posted.len());
        loop {
            let account = self.receiver.log().look(log_from, |log| ledger::account(&posted, log));
            let arrived = account.accepted - account.lost;
            bar.set_position(u64::try_from(arrived).unwrap_or(0));
            if account.lost == 0 || self.epoch.now() > until {
                bar.finish_and_clear();
                return account;
            }
            // The account is a walk over the log: not for every request.
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.receiver.log().changed(Duration::from_secs(1)).await;
        }
    }

    /// Waits until none of these destinations has a delivery left that could still be sent.
    ///
    /// # Errors
    /// That takes longer than `at_most`, or the API does not answer.
    pub async fn settled(&self, destinations: &[Destination], at_most: Duration) -> anyhow::Result<()> {
        let until = self.epoch.now() + at_most;
        for destination in destinations {
            while !self.target.api.is_settled(&destination.id).await? {
                if self.epoch.now() > until {
                    bail!("{} still has open deliveries after {at_most:?}", destination.event_type);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }
}

/// A progress bar; a spinner where the length is 0. Nothing where the terminal is none.
pub fn bar(what: &str, length: usize) -> ProgressBar {
    let template = if length == 0 {
        "{spinner} {prefix} {elapsed}"
    } else {
        "{prefix:>12} {bar:40} {human_pos}/{human_len} {per_sec} {eta}"
    };
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(0)).with_prefix(what.to_owned());
    // The template is fixed; where it were wrong the default is good enough.
    let bar = match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
