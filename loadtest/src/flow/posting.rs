//! A load is posted, arrives, and is held against what was accepted.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use super::{DIRECT_PATH, Flow, Load, Measured, figure};
use crate::{
    client::TIMEOUT,
    load::Pace,
    processes,
    run::bar,
    target::Running,
    wire::{Client, Late, Plan, Ran, Tally, Template, tally},
};

/// Requests of a direct run, and before it.
const DIRECT: u64 = 40_000;
const DIRECT_WARM: u64 = 4_000;
/// Where nothing has come for so long, the ids are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// What a direct run found.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Direct {
    /// Requests each second.
    pub per_second: f64,
    /// CPU microseconds of the producers for each.
    pub producers_us: f64,
    /// And of the sink.
    pub sink_us: f64,
}

/// A moment from which is counted.
#[derive(Debug)]
pub struct Mark {
    /// When it was.
    pub at: Duration,
    /// What had arrived.
    accepted: u64,
    used: Used,
}

/// CPU seconds.
#[derive(Debug)]
pub(super) struct Used {
    /// By service.
    pub services: Vec<(String, f64)>,
    /// By thread of our own services.
    pub threads: Vec<(String, f64)>,
    /// Of the sink.
    pub sink: f64,
}

impl Used {
    /// Since then.
    fn since(self, before: &Self) -> Self {
        Self {
            services: measured_since(&before.services, self.services),
            threads: measured_since(&before.threads, self.threads),
            sink: self.sink - before.sink,
        }
    }
}

impl Flow {
    /// The load before anything counts: so many deliveries, whatever an event's are; and a database of ours gets the log of one
    /// that is in use. How many events were accepted.
    ///
    /// # Errors
    /// As [`Self::run`]; or something was lost.
    pub async fn warm(&self, load: &Load) -> anyhow::Result<u64> {
        if self.warm == 0 {
            return Ok(0);
        }
        let events = self.warm / load.fan.max(1);
        let load = Load { what: "warming".into(), events, pace: Pace::Closed, ..load.clone() };
        if let Running::Cluster(cluster) = &self.target.running {
            tokio::task::block_in_place(|| cluster.postgres.age_log())?;
        }
        let warmed = self.run(&load).await?;
        anyhow::ensure!(warmed.tally.lost == 0, "{} of {} were lost", warmed.tally.lost, warmed.tally.posted);
        let accepted = warmed.tally.accepted;
        self.late().add(warmed.tally);
        Ok(accepted)
    }

    /// Requests each second of the same producers straight to the same sink, and the CPU of both for each.
    ///
    /// # Errors
    /// They cannot reach it.
    pub async fn direct(&self) -> anyhow::Result<Direct> {
        let template = Template::direct(&self.sink.address().to_string(), DIRECT_PATH);
        let requests = self.made(&template, &["direct.0"], 1);
        let mut found = Direct::default();
        self.late().came(&self.sink.take());
        for count in [DIRECT_WARM, DIRECT] {
            let load = Load::closed("direct", requests.clone(), count);
            let before = self.sink.cpu();
            let client = Client { addresses: vec![self.sink.address()], ..self.client(load.pace) };
            let plan = self.plan(&load);
            let ran = tokio::task::spawn_blocking(move || client.run(plan, &Arc::default())).await??;
            let held = tally(&ran.answers, 1, &self.sink.take(), 1);
            self.late().came(&held.others);
            let tally = held.tally;
            anyhow::ensure!(tally.accepted == count && tally.lost == 0, "the direct run lost something: {tally:?}");
            let each = |seconds: f64| seconds * 1e6 / figure(count);
            found = Direct {
                per_second: figure(count) / ran.ended.saturating_sub(ran.began).as_secs_f64(),
                producers_us: each(ran.cpu),
                sink_us: each(self.sink.cpu() - before),
            };
        }
        Ok(found)
    }

    fn client(&self, pace: Pace) -> Client {
        let connections = self.options.connections(pace);
        Client { addresses: self.addresses.clone(), connections, epoch: self.epoch, timeout: TIMEOUT }
    }

    fn plan(&self, load: &Load) -> Plan {
        let (count, batch) = (load.requests(), load.requests.batch);
        Plan {
            requests: Arc::clone(&load.requests.all),
            count,
            events: batch,
            first: self.next_number.fetch_add(count * batch, Ordering::Relaxed),
            // As many events, whatever the number of requests.
            pace: match load.pace {
                Pace::PerSecond(rate) => Pace::PerSecond(rate / figure(batch)),
                Pace::Closed => Pace::Closed,
            },
            repeat_every: load.repeat_every,
        }
    }

    /// Takes what has arrived away, and begins to count.
    pub fn mark(&self) -> Mark {
        self.late().came(&self.sink.take());
        Mark { at: self.epoch.now(), accepted: self.sink.accepted(), used: self.used() }
    }

    /// Up to now.
    fn used(&self) -> Used {
        let pids = &self.target.pids;
        Used { services: processes::cpu(pids), threads: processes::cpu_by_thread(pids), sink: self.sink.cpu() }
    }

    /// Posts a load and waits for the answers; the progress is that of what arrives, where something is to.
    ///
    /// # Errors
    /// The producers cannot connect.
    pub async fn post(&self, load: &Load) -> anyhow::Result<Ran> {
        let client = self.client(load.pace);
        let plan = self.plan(load);
        let progress = bar(&load.what, usize::try_from(plan.count * plan.events).unwrap_or(0));
        let done = Arc::<AtomicU64>::default();
        let mut sending = tokio::task::spawn_blocking({
            let done = Arc::clone(&done);
            move || client.run(plan, &done)
        });
        loop {
            tokio::select! {
                ran = &mut sending => {
                    progress.finish_and_clear();
                    return Ok(ran??);
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => progress.set_position(done.load(Ordering::Relaxed)),
            }
        }
    }

    /// Waits until all of a load has arrived, and until what is measured is calm again: what it does after the last arrival
    /// is part of the price of an event.
    ///
    /// # Errors
    /// None: the bounds of histograms are in order.
    pub async fn arrived(&self, load: &Load, ran: Ran, mark: &Mark) -> anyhow::Result<Measured> {
        let (expected, batch) = (load.deliveries(), load.requests.batch);
        let progress = bar("arriving", usize::try_from(expected).unwrap_or(0));
        let mut arrivals = Vec::new();
        let mut arrived = self.sink.accepted();
        let mut last_change = self.epoch.now();
        let mut looked_at = u64::MAX;
        loop {
            let now = self.sink.accepted();
            progress.set_position(now - mark.accepted);
            if now != arrived {
                (arrived, last_change) = (now, self.epoch.now());
            }
            let quiet_for = self.epoch.now().saturating_sub(last_change);
            // What was refused never comes, and what came twice fills another's place: the ids decide. A walk over them is
            // worth it when as many have come as should, or nothing has for a while.
            if (now - mark.accepted >= expected || quiet_for > PAUSE) && looked_at != now {
                looked_at = now;
                arrivals.append(&mut self.sink.take());
                if tally(&ran.answers, batch, &arrivals, load.fan).tally.lost == 0 {
                    break;
                }
            }
            if quiet_for > load.patience {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        progress.finish_and_clear();
        self.calm().await;
        let used = self.used().since(&mark.used);
        arrivals.append(&mut self.sink.take());
        let held = tally(&ran.answers, batch, &arrivals, load.fan);
        let first = ran.answers.iter().map(|answer| answer.first).min().unwrap_or(0);
        let end = ran.answers.iter().map(|answer| answer.first + batch).max().unwrap_or(first);
        // What nobody wants yet is not counted yet.
        if load.fan > 0 {
            self.late().counted(first..end, &held);
        } else {
            self.late().came(&held.others);
        }
        Measured::of(ran, arrivals, held.tally, held.latencies, mark, used)
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a moment for what may still come of all loads that were counted: the duplicates outside of their tallies, since
    /// the last time that it was asked.
    pub async fn came_late(&self) -> Tally {
        tokio::time::sleep(PAUSE).await;
        let mut late = self.late();
        late.came(&self.sink.take());
        late.take()
    }

    /// Posts a load, waits until all of it has arrived, and counts from its first request.
    ///
    /// # Errors
    /// The producers cannot connect.
    pub async fn run(&self, load: &Load) -> anyhow::Result<Measured> {
        let mut mark = self.mark();
        let ran = self.post(load).await?;
        mark.at = ran.began;
        self.arrived(load, ran, &mark).await
    }

    /// Waits until what is measured uses less than a fifth of a core.
    pub async fn calm(&self) {
        let mut before = processes::cpu_of_all(&self.target.pids);
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = processes::cpu_of_all(&self.target.pids);
            if now - before < 0.021 {
                return;
            }
            before = now;
        }
    }
}

/// CPU seconds by name since then.
fn measured_since(before: &[(String, f64)], now: Vec<(String, f64)>) -> Vec<(String, f64)> {
    let of = |name: &str| before.iter().find(|(before, _)| before == name).map_or(0.0, |(_, cpu)| *cpu);
    now.into_iter().map(|(name, cpu)| (name.clone(), cpu - of(&name))).collect()
}
