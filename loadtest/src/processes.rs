//! Memory and CPU of what is measured, from `/proc` (Linux; elsewhere there is nothing to tell). A service counts with its
//! children (PostgreSQL is many processes), and shared memory counts once (PSS), not once for each that maps it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::epoch::Epoch;

/// Clock ticks a second, on every Linux that we know.
const TICKS: f64 = 100.0;

/// Name and process id of each service. Shared, because services are restarted.
pub type Pids = Arc<Mutex<Vec<(String, u32)>>>;

/// Services that are not ours.
const OTHERS: [&str; 3] = ["postgres", "kafka", "redis"];

/// Whether a service is Signalpost.
pub fn is_ours(name: &str) -> bool {
    !OTHERS.contains(&name)
}

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
        Self::of(epoch, pids, every, usage)
    }

    /// The same, but for memory, which is dear to ask for: for what is measured at its limit.
    pub fn of_cpu(epoch: Epoch, pids: Pids, every: Duration) -> Self {
        let cpu_only = |pids: &Pids| cpu(pids).into_iter().map(|(name, cpu)| (name, 0.0, cpu)).collect();
        Self::of(epoch, pids, every, cpu_only)
    }

    fn of(epoch: Epoch, pids: Pids, every: Duration, usage: fn(&Pids) -> Vec<(String, f64, f64)>) -> Self {
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
    let with_children = families(pids).into_iter();
    let sum = |of: fn(u32) -> Option<f64>, family: &[u32]| family.iter().filter_map(|pid| of(*pid)).sum();
    with_children.map(|(name, family)| (name, sum(memory_mib, &family), sum(cpu_seconds, &family))).collect()
}

/// CPU seconds of each service so far. Cheaper than [`usage`]: the kernel walks all pages of a process to tell its memory.
pub fn cpu(pids: &Pids) -> Vec<(String, f64)> {
    let families = families(pids).into_iter();
    families.map(|(name, family)| (name, family.iter().filter_map(|pid| cpu_seconds(*pid)).sum())).collect()
}

/// CPU seconds of our own services so far by what their threads are called, as `standalone: store-writer`: each stage that has
/// threads of its own. Those that differ by a number alone are one.
pub fn cpu_by_thread(pids: &Pids) -> Vec<(String, f64)> {
    let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut threads: BTreeMap<String, f64> = BTreeMap::new();
    for (service, pid) in pids.into_iter().filter(|(service, _)| is_ours(service)) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let name = name.trim_end().trim_end_matches(|last: char| last.is_ascii_digit());
            *threads.entry(format!("{service}: {name}")).or_default() += scheduled_seconds(&task.path());
        }
    }
    threads.into_iter().collect()
}

/// CPU seconds of all of them together.
pub fn cpu_of_all(pids: &Pids) -> f64 {
    cpu(pids).into_iter().map(|(_, cpu)| cpu).sum()
}

/// Each service with the ids of its processes.
fn families(pids: &Pids) -> Vec<(String, Vec<u32>)> {
    let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let children = children();
    let family = |pid| {
        let mut family = vec![pid];
        let mut seen = 0;
        while let Some(parent) = family.get(seen) {
            let next = children.get(parent).cloned().unwrap_or_default();
            family.extend(next);
            seen += 1;
        }
        family
    };
    pids.into_iter().map(|(name, pid)| (name, family(pid))).collect()
}

/// CPU seconds of the thread that calls.
pub fn thread_cpu() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// CPU seconds of this process.
#[cfg(feature = "limits")]
pub fn own_cpu() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// The id of the thread that calls.
pub fn this_thread() -> u32 {
    u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0)
}

/// CPU seconds of a thread of this process, to the nanosecond.
pub fn cpu_of_thread(id: u32) -> f64 {
    scheduled_seconds(Path::new(&format!("/proc/self/task/{id}")))
}

fn scheduled_seconds(thread: &Path) -> f64 {
    let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|value| value.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// The most memory that each of them held at any time, in MiB, shared memory and all (the kernel's `VmHWM`).
pub fn peak_mib(pids: &Pids) -> Vec<(String, f64)> {
    let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let peak = |pid| status_kib(pid, "VmHWM:").unwrap_or(0.0) / 1024.0;
    pids.into_iter().map(|(name, pid)| (name, peak(pid))).collect()
}

/// How many file descriptors each service has open.
pub fn descriptors(pids: &Pids) -> Vec<(String, usize)> {
    let open = |pid: &u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    families(pids).into_iter().map(|(name, family)| (name, family.iter().map(open).sum())).collect()
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
    let proportional = field_kib(pid, "smaps_rollup", "Pss:");
    Some(proportional.or_else(|| status_kib(pid, "VmRSS:"))? / 1024.0)
}

fn status_kib(pid: u32, name: &str) -> Option<f64> {
    field_kib(pid, "status", name)
}

fn field_kib(pid: u32, file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
