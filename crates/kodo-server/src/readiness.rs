//! How far the boot of this process has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far boot has come: the binary tells, the server acts on it. Cheap to clone: a handle to one flag.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    migrated: Arc<AtomicBool>,
}

impl Readiness {
    /// A process that has just started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Boot has seen that the schema is there. From here on the routes that need the database are open; before, they
    /// answer 503, so that a missing table is never a client's problem.
    pub fn set_migrated(&self) {
        self.migrated.store(true, Ordering::Release);
    }

    /// Whether [`Self::set_migrated`] was called.
    #[must_use]
    pub fn is_migrated(&self) -> bool {
        self.migrated.load(Ordering::Acquire)
    }
}
