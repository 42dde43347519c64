//! How far the boot of this process has come, and what keeps it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the binary knows of this process and the server reports: whether boot has migrated the database, why a check of
/// `/readyz` fails, how many lines of the log were lost. A handle: cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    migrated: Arc<AtomicBool>,
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
    lost_log_lines: Arc<AtomicU64>,
}

impl Readiness {
    /// A process that has just started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with this count of log lines that were lost.
    #[must_use]
    pub fn counting(mut self, lost_log_lines: Arc<AtomicU64>) -> Self {
        self.lost_log_lines = lost_log_lines;
        self
    }

    /// Reports that the schema is there. From here on the routes that need the database work; before, they answer 503,
    /// so that no client sees the error of a missing table.
    pub fn set_migrated(&self) {
        self.migrated.store(true, Ordering::Release);
    }

    /// Whether [`Self::set_migrated`] was called.
    #[must_use]
    pub fn is_migrated(&self) -> bool {
        self.migrated.load(Ordering::Acquire)
    }

    /// Says why a check of `/readyz` fails, for people; `None` if there is nothing to say any more.
    pub fn set_reason(&self, check: &'static str, reason: Option<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => reasons.insert(check, reason),
            None => reasons.remove(check),
        };
    }

    /// What was said, by check.
    pub(crate) fn reasons(&self) -> BTreeMap<&'static str, String> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.clone()
    }

    /// How many lines of the log were lost because they could not be written.
    pub(crate) fn lost_log_lines(&self) -> u64 {
        self.lost_log_lines.load(Ordering::Relaxed)
    }
}
