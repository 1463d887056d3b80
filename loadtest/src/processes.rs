//! Memory and CPU of what is measured, from `/proc` (Linux; elsewhere there is nothing to tell). A service counts with its
//! children (PostgreSQL is many processes), and shared memory counts once (PSS), not once for each that maps it.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::epoch::Epoch;

/// Clock ticks a second, on every Linux that we know.
const TICKS: f64 = 100.0;

/// Name and process id of each service. Shared, because services are restarted.
pub type Pids = Arc<Mutex<Vec<(String, u32)>>>;

/// What a service used at a moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Seconds since the epoch.
    pub at: f64,
    /// Memory, in MiB.
    pub mib: f64,
    /// CPU so far, in seconds.
    pub cpu: f64,
}

/// Samples by service.
pub type Samples = BTreeMap<String, Vec<Sample>>;

/// Samples until it is dropped or asked.
#[derive(Debug)]
pub struct Sampler {
    samples: Arc<Mutex<Samples>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// One sample of each service in that interval.
    pub fn start(epoch: Epoch, pids: Pids, every: Duration) -> Self {
        let samples: Arc<Mutex<Samples>> = Arc::default();
        let task = tokio::spawn({
            let samples = Arc::clone(&samples);
            async move {
                loop {
                    let now = epoch.now().as_secs_f64();
                    let used = usage(&pids);
                    {
                        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                        for (name, mib, cpu) in used {
                            samples.entry(name).or_default().push(Sample { at: now, mib, cpu });
                        }
                    }
                    tokio::time::sleep(every).await;
                }
            }
        });
        Self { samples, task }
    }

    /// What was sampled so far.
    pub fn samples(&self) -> Samples {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Name, MiB and CPU seconds of each service now.
pub fn usage(pids: &Pids) -> Vec<(String, f64, f64)> {
    let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let children = children();
    let mut usage = Vec::with_capacity(pids.len());
    for (name, pid) in pids {
        let mut left = vec![pid];
        let (mut mib, mut cpu) = (0.0, 0.0);
        while let Some(pid) = left.pop() {
            mib += memory_mib(pid).unwrap_or(0.0);
            cpu += cpu_seconds(pid).unwrap_or(0.0);
            left.extend(children.get(&pid).into_iter().flatten());
        }
        usage.push((name, mib, cpu));
    }
    usage
}

/// CPU seconds of all of them together.
pub fn cpu_of_all(pids: &Pids) -> f64 {
    usage(pids).into_iter().map(|(_, _, cpu)| cpu).sum()
}

fn children() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let parent = pid.and_then(|pid| stat(pid)?.get(1)?.parse().ok());
        if let (Some(pid), Some(parent)) = (pid, parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// The fields of `/proc/<pid>/stat` from the state on: the name before it may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    // utime, stime, and those of children that have ended.
    let fields = stat(pid)?;
    let ticks: f64 = (11..15).filter_map(|place| fields.get(place)?.parse::<f64>().ok()).sum();
    Some(ticks / TICKS)
}

fn memory_mib(pid: u32) -> Option<f64> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let kib = |text: String, name: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let proportional = file("smaps_rollup").and_then(|text| kib(text, "Pss:"));
    Some(proportional.or_else(|| kib(file("status")?, "VmRSS:"))? / 1024.0)
}
