//! What everybody in a soak knows: where the services are, what clients were told, what was broken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::schedule::Fault;

/// An accepted run, as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct AcceptedRun {
    pub(crate) run: String,
    pub(crate) intent: String,
    pub(crate) key: String,
    /// Index of its intent's body in [`super::clients::INTENTS`].
    pub(crate) kind: usize,
}

/// Counted in passing, shown in progress lines and at the end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests sent, retries included.
    pub(crate) requests: AtomicU64,
    /// Requests that got no answer at all: refused, cut, timed out.
    pub(crate) unanswered: AtomicU64,
    /// Requests that were told to come again (503).
    pub(crate) unavailable: AtomicU64,
    /// Answers that were replayed by idempotency key.
    pub(crate) replayed: AtomicU64,
    /// Runs that a client has seen come to their end.
    pub(crate) ended: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How long something took, each time it happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) slowest: Duration,
}

impl Times {
    pub(crate) fn add(&mut self, took: Duration) {
        self.count += 1;
        self.slowest = self.slowest.max(took);
    }
}

/// A service that is up; its generation tells one process from the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Up {
    port: u16,
    generation: u64,
    /// It said so once; it may have lost its database since.
    ready: bool,
}

/// What clients were told, and what became of the services.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Each service that is up.
    pub(crate) services: Vec<Option<Up>>,
    /// Ids of intents, by idempotency key.
    pub(crate) intents: BTreeMap<String, String>,
    pub(crate) runs: Vec<AcceptedRun>,
    /// Ids of crash demos.
    pub(crate) demos: Vec<String>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// Restarts of services that became ready.
    pub(crate) restarts: Times,
    /// Restarts of the database that took connections.
    pub(crate) databases: Times,
    /// What nobody may ever see; the verdict adds what the rows say.
    pub(crate) wrong: Vec<String>,
}

/// The board itself.
#[derive(Debug, Default)]
pub(crate) struct Board {
    told: Mutex<Told>,
    pub(crate) counts: Counts,
}

impl Board {
    /// A board for so many services, all of them down.
    pub(crate) fn new(services: usize) -> Self {
        let board = Self::default();
        board.told().services = vec![None; services];
        board
    }

    /// What is known by now. Nobody waits for anything while they hold it.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a service listens, or with `None` that it does not any more.
    pub(crate) fn set_service(&self, index: usize, at: Option<(u16, u64)>) {
        self.told().services[index] = at.map(|(port, generation)| Up {
            port,
            generation,
            ready: false,
        });
    }

    /// A service became ready.
    pub(crate) fn set_ready(&self, index: usize) {
        if let Some(up) = &mut self.told().services[index] {
            up.ready = true;
        }
    }

    /// Whether a service is up and has been ready.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.told().services[index].is_some_and(|up| up.ready)
    }

    /// Whether one of them is.
    pub(crate) fn is_any_ready(&self) -> bool {
        self.told().services.iter().flatten().any(|up| up.ready)
    }

    /// Whether a service is still the process of that generation.
    pub(crate) fn is_generation(&self, index: usize, generation: u64) -> bool {
        self.told().services[index].is_some_and(|up| up.generation == generation)
    }

    /// The port of a service, if it is up.
    pub(crate) fn port(&self, index: usize) -> Option<u16> {
        let state = self.told();
        state.services[index % state.services.len()].map(|up| up.port)
    }

    /// Something was broken.
    pub(crate) fn broke(&self, fault: Fault) {
        *self.told().faults.entry(fault).or_default() += 1;
    }

    /// Something that nobody may ever see.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        self.told().wrong.push(what.into());
    }

    /// One line of how far it is.
    pub(crate) fn progress(&self) -> String {
        let told = self.told();
        format!(
            "{} runs and {} crash demos accepted, {} runs seen to end, {} requests ({} without an answer, {} told \
             503), {} faults, {} services up, {} violations",
            told.runs.len(),
            told.demos.len(),
            read(&self.counts.ended),
            read(&self.counts.requests),
            read(&self.counts.unanswered),
            read(&self.counts.unavailable),
            told.faults.values().sum::<u64>(),
            told.services.iter().flatten().count(),
            told.wrong.len(),
        )
    }
}
