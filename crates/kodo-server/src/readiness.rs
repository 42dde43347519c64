//! How far the boot of this process has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether boot has migrated the database: the binary sets it, the server reads it. A handle: cheap to clone.
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
}
