//! What all parts of a run share: the trace, the faults that are on, the checks, and whether the run is over.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use signalpost_core::DestinationId;
use signalpost_store::Changes;
use signalpost_store_sqlite::simulation::Inspector;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    check::{Checker, Invariant, Violation},
    knobs::Knobs,
    panics,
    time::SimClock,
    trace::Trace,
};

/// Which faults are on now. Written by the chaos alone.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Until when the store is away.
    pub store_until: Option<Instant>,
    /// Until when the bus is.
    pub bus_until: Option<Instant>,
    /// Until when the limits are.
    pub limits_until: Option<Instant>,
    /// No fault happens any more.
    pub healed: bool,
}

/// Passes changes of destinations on, to every life in turn: the store's own channel wakes its receivers in no order.
#[derive(Debug)]
struct Hub {
    source: Changes,
    lives: Vec<mpsc::UnboundedSender<u64>>,
}

/// One run.
#[derive(Debug)]
pub struct World {
    /// Of the run.
    pub seed: u64,
    /// Its shape.
    pub knobs: Knobs,
    /// When it began.
    pub start: Instant,
    /// The time of the store and of the bus.
    pub clock: Arc<SimClock>,
    /// Cancelled at the first violation.
    pub broken: CancellationToken,
    inspector: Inspector,
    hub: Mutex<Hub>,
    trace: Mutex<Trace>,
    faults: Mutex<Faults>,
    checker: Mutex<Checker>,
    violation: Mutex<Option<Violation>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A new one. Call it within the run's runtime.
    pub fn new(
        seed: u64,
        knobs: Knobs,
        clock: Arc<SimClock>,
        inspector: Inspector,
        changes: Changes,
        loud: bool,
    ) -> Self {
        Self {
            seed,
            start: Instant::now(),
            clock,
            broken: CancellationToken::new(),
            inspector,
            hub: Mutex::new(Hub { source: changes, lives: Vec::new() }),
            trace: Mutex::new(Trace::new(loud)),
            faults: Mutex::default(),
            checker: Mutex::new(Checker::new(&knobs)),
            violation: Mutex::default(),
            knobs,
        }
    }

    /// Adds a line to the trace.
    pub fn tell(&self, who: &str, what: fmt::Arguments<'_>) {
        lock(&self.trace).add(who, what, true);
    }

    /// Adds a line that counts for the hash and is not shown.
    pub fn count(&self, who: &str, what: fmt::Arguments<'_>) {
        lock(&self.trace).add(who, what, false);
    }

    /// The trace.
    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    /// The faults that are on.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// Whether faults still happen.
    pub fn is_healed(&self) -> bool {
        self.faults().healed
    }

    /// What the run shows of the store.
    pub const fn inspector(&self) -> &Inspector {
        &self.inspector
    }

    /// Looks at what the store changed, after a call to it.
    pub fn look(&self, who: &str) {
        let changes = match self.inspector.changes() {
            Ok(changes) => changes,
            Err(error) => return self.violate(Invariant::Sound, format!("the changes cannot be read: {error}")),
        };
        let found = {
            let mut checker = lock(&self.checker);
            for change in &changes {
                self.tell(who, format_args!("  {change:?}"));
            }
            checker.changed(&changes, Instant::now())
        };
        self.report(found);
        self.pass_on();
    }

    /// Where the next changes of destinations are told.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<u64> {
        let (told, changes) = mpsc::unbounded_channel();
        lock(&self.hub).lives.push(told);
        changes
    }

    fn pass_on(&self) {
        let mut hub = lock(&self.hub);
        if hub.source.has_changed().unwrap_or(false) {
            let count = *hub.source.borrow_and_update();
            hub.lives.retain(|life| life.send(count).is_ok());
        }
    }

    /// Runs a check, and reports what it finds.
    pub fn check<T>(&self, check: impl FnOnce(&mut Checker) -> Result<T, Violation>) -> Option<T> {
        let checked = check(&mut lock(&self.checker));
        match checked {
            Ok(value) => Some(value),
            Err(violation) => {
                self.report(Err(violation));
                None
            }
        }
    }

    /// Asks the checker something.
    pub fn ask<T>(&self, question: impl FnOnce(&mut Checker) -> T) -> T {
        question(&mut lock(&self.checker))
    }

    /// Something of ours went wrong on purpose: bounds on time count anew.
    pub fn trouble(&self) {
        lock(&self.checker).trouble_at = Instant::now();
    }

    /// Reports what a check found.
    pub fn report(&self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.violate(violation.invariant, violation.text);
        } else if let Some(text) = panics::take() {
            self.violate(Invariant::Sound, text);
        }
    }

    /// Something is broken. The first time counts.
    pub fn violate(&self, invariant: Invariant, text: String) {
        let mut violation = lock(&self.violation);
        if violation.is_none() {
            self.tell("check", format_args!("{invariant}: {text}"));
            *violation = Some(Violation { invariant, text });
            self.broken.cancel();
        }
    }

    /// What is broken.
    pub fn violation(&self) -> Option<Violation> {
        lock(&self.violation).clone()
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A short name for an id in the trace.
    pub fn name_of(&self, destination: DestinationId) -> String {
        lock(&self.checker).name_of(destination)
    }
}
