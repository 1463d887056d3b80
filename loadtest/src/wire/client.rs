//! Producers: so many connections, each with one request at a time, on one thread.
//!
//! Closed loop: a connection sends its next request when the last is answered. Open loop: the n-th request is due at its
//! time, whatever became of the others; where every connection is busy it waits, and its latency counts from when it was due.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, unix::pipe},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Prepared,
    frame::{Reader, Side},
};
use crate::{epoch::Epoch, load::Pace, processes};

/// Between connecting and the first request.
const LEAD: Duration = Duration::from_millis(5);
/// How soon the next are looked for, at the least: a timer that rings for each request would cost more than they do.
const TICK: Duration = Duration::from_micros(500);

/// Where requests go, and over how many connections.
#[derive(Debug, Clone)]
pub struct Client {
    /// Connections are spread over them.
    pub addresses: Vec<SocketAddr>,
    /// How many.
    pub connections: usize,
    /// The clock.
    pub epoch: Epoch,
    /// How long an answer may take: then the request has failed.
    pub timeout: Duration,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Taken in turn, by the number of the request.
    pub requests: Arc<[Prepared]>,
    /// How many requests.
    pub count: u64,
    /// Events in each.
    pub events: u64,
    /// The number of the first event.
    pub first: u64,
    /// When they are due.
    pub pace: Pace,
    /// Every so-manieth request repeats the one before, number and all; 0: none does.
    pub repeat_every: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// The number of its first event.
    pub first: u64,
    /// When it was due: in the closed loop, when it was sent.
    pub intended: Duration,
    /// When its answer had been read.
    pub answered: Duration,
    /// What it was; 0 where none came in time.
    pub status: u16,
    /// Whether the answer says that the event was known.
    pub known: bool,
}

impl Answered {
    /// Whether it was answered with 2xx.
    pub const fn accepted(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

/// What became of all of them.
#[derive(Debug)]
pub struct Ran {
    /// In no order.
    pub answers: Vec<Answered>,
    /// When the first was due.
    pub began: Duration,
    /// When the last was answered.
    pub ended: Duration,
    /// CPU seconds of the producers.
    pub cpu: f64,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    began: Duration,
    timeout: Duration,
    next: AtomicU64,
    /// A permit for each request that is due; closed when all are.
    due: Semaphore,
    done: Arc<AtomicU64>,
}

impl Client {
    /// Sends all of it, on the thread that calls. `done` counts the events that were answered for.
    ///
    /// # Errors
    /// It cannot connect.
    pub fn run(&self, plan: Plan, done: &Arc<AtomicU64>) -> io::Result<Ran> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.send(plan, Arc::clone(done)))
    }

    async fn send(&self, plan: Plan, done: Arc<AtomicU64>) -> io::Result<Ran> {
        let mut streams = Vec::with_capacity(self.connections);
        for address in self.addresses.iter().cycle().take(self.connections) {
            streams.push((*address, timeout(self.timeout, connect(*address)).await??));
        }
        let cpu = processes::thread_cpu();
        let began = self.epoch.now() + LEAD;
        let (next, due) = (AtomicU64::new(0), Semaphore::new(0));
        let shared = Arc::new(Shared { plan, began, timeout: self.timeout, next, due, done });
        let mut sending = JoinSet::new();
        for (address, stream) in streams {
            sending.spawn(one_after_the_other(self.epoch, address, stream, Arc::clone(&shared)));
        }
        ring(self.epoch, &shared).await?;
        let mut answers = Vec::with_capacity(usize::try_from(shared.plan.count).unwrap_or(0));
        while let Some(sent) = sending.join_next().await {
            answers.extend(sent.map_err(io::Error::other)?);
        }
        let ended = answers.iter().map(|answer| answer.answered).max().unwrap_or(began);
        // In the closed loop the first is due when it is sent.
        let began = answers.iter().map(|answer| answer.intended).min().unwrap_or(began);
        Ok(Ran { answers, began, ended, cpu: processes::thread_cpu() - cpu })
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Lets the connections take what is due, until all of it is.
async fn ring(epoch: Epoch, shared: &Shared) -> io::Result<()> {
    let count = shared.plan.count;
    let Pace::PerSecond(rate) = shared.plan.pace else {
        shared.due.close();
        return Ok(());
    };
    // tokio's timer knows milliseconds; this one is as good as the kernel's.
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    // Another handle to the same timer: each time it rings, eight bytes can be read from it.
    let mut rings = pipe::Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
    let mut released = 0;
    while released < count {
        let now = epoch.now();
        let mut ready = 0;
        while released < count && shared.began + intended(released, rate) <= now {
            released += 1;
            ready += 1;
        }
        shared.due.add_permits(ready);
        let wait =
            (shared.began + intended(released, rate)).saturating_sub(now).max(TICK).min(Duration::from_millis(100));
        timer.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
        rings.read_u64_le().await?;
    }
    shared.due.close();
    Ok(())
}

/// When a request is due, since the first.
#[allow(clippy::cast_precision_loss, reason = "a count of events")]
fn intended(nth: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(nth as f64 / rate)
}

async fn one_after_the_other(
    epoch: Epoch,
    address: SocketAddr,
    stream: TcpStream,
    shared: Arc<Shared>,
) -> Vec<Answered> {
    let Shared { plan, began, timeout, next, due, done } = &*shared;
    let mut answers = Vec::with_capacity(1024);
    let mut text = Vec::new();
    let mut stream = Some((stream, Reader::new(Side::Answers)));
    // One timer for all requests of the connection: setting it later is cheap, another for each would not be.
    let silent = sleep(*timeout);
    tokio::pin!(silent);
    loop {
        if let Ok(permit) = due.acquire().await {
            permit.forget();
        }
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= plan.count {
            return answers;
        }
        let intended = match plan.pace {
            Pace::Closed => epoch.now(),
            Pace::PerSecond(rate) => *began + intended(nth, rate),
        };
        let repeats = plan.repeat_every > 0 && nth % plan.repeat_every == plan.repeat_every - 1;
        let place = if repeats { nth - 1 } else { nth };
        let first = plan.first + place * plan.events;
        let which = usize::try_from(place).unwrap_or(0) % plan.requests.len();
        plan.requests[which].write(first, &mut text);
        silent.as_mut().reset(Instant::now() + *timeout);
        let (status, known) = tokio::select! {
            biased;
            answer = exchange(&mut stream, address, &text) => answer.unwrap_or((0, false)),
            // What comes later on that connection would be taken for the answer to another request: it is dropped.
            () = &mut silent => (0, false),
        };
        answers.push(Answered { first, intended, answered: epoch.now(), status, known });
        done.fetch_add(plan.events, Ordering::Relaxed);
    }
}

/// One request and its answer: status, and whether it says that the event was known. A broken connection is made anew by the
/// next.
async fn exchange(
    place: &mut Option<(TcpStream, Reader)>,
    address: SocketAddr,
    text: &[u8],
) -> io::Result<(u16, bool)> {
    let (mut stream, mut reader) = match place.take() {
        Some(there) => there,
        None => (connect(address).await?, Reader::new(Side::Answers)),
    };
    stream.write_all(text).await?;
    let answer = reader.next(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let known = memchr::memmem::find(reader.body(&answer), b"\"duplicate\":true").is_some();
    if !answer.last {
        *place = Some((stream, reader));
    }
    Ok((answer.status, known))
}
