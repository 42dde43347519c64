//! What everybody in a soak knows: where the services are, what clients were told, what was broken.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::schedule::Fault;

/// An accepted run, as its client knows it.
#[derive(Debug, Clone)]
pub(super) struct AcceptedRun {
    pub(super) run: String,
    pub(super) intent: String,
    pub(super) key: String,
    /// Index of its intent's body in [`super::clients::INTENTS`].
    pub(super) kind: usize,
}

/// A service that is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Up {
    pub(super) port: u16,
    /// It said so once; it may have lost its database since.
    pub(super) ready: bool,
}

/// What clients were told, and what became of the services.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Each service that is up.
    pub(super) services: Vec<Option<Up>>,
    /// Ids of intents, by idempotency key.
    pub(super) intents: BTreeMap<String, String>,
    pub(super) runs: Vec<AcceptedRun>,
    /// Ids of crash demos.
    pub(super) demos: Vec<String>,
    /// Requests sent, retries included.
    pub(super) requests: u64,
    /// Requests that got no answer at all: refused, cut, timed out.
    pub(super) unanswered: u64,
    /// Requests that were told to come again (503).
    pub(super) unavailable: u64,
    /// Answers that were replayed by idempotency key.
    pub(super) replayed: u64,
    /// Runs that a client has seen come to their end.
    pub(super) ended: u64,
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Restarts of services that became ready.
    pub(super) restarts: u64,
    /// What nobody may ever see; the verdict adds what the rows say.
    pub(super) wrong: Vec<String>,
}

impl Told {
    /// Every key that an answered request had.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let runs = self.runs.iter().map(|run| run.key.as_str());
        runs.chain(self.intents.keys().map(String::as_str))
    }
}

/// The board itself.
#[derive(Debug)]
pub(super) struct Board(Mutex<Told>);

impl Board {
    /// A board for so many services, all of them down.
    pub(super) fn new(services: usize) -> Self {
        Self(Mutex::new(Told {
            services: vec![None; services],
            ..Told::default()
        }))
    }

    /// What is known by now. Nobody waits for anything while they hold it.
    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A service, if it is up.
    pub(super) fn service(&self, index: usize) -> Option<Up> {
        let told = self.told();
        told.services[index % told.services.len()]
    }

    /// Something was broken.
    pub(super) fn broke(&self, fault: Fault) {
        *self.told().faults.entry(fault).or_default() += 1;
    }

    /// Something that nobody may ever see.
    pub(super) fn wrong(&self, what: impl Into<String>) {
        self.told().wrong.push(what.into());
    }

    /// One line of how far it is.
    pub(super) fn progress(&self) -> String {
        let told = self.told();
        format!(
            "{} runs and {} crash demos accepted, {} runs seen to end, {} requests ({} without an answer, {} told \
             503), {} faults, {} services up, {} violations",
            told.runs.len(),
            told.demos.len(),
            told.ended,
            told.requests,
            told.unanswered,
            told.unavailable,
            told.faults.values().sum::<u64>(),
            told.services.iter().flatten().count(),
            told.wrong.len(),
        )
    }
}
