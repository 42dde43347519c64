//! What every check of the doctor is given, and its deadline.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::finding::Finding;
use super::next::Next;
use crate::devdb::DevDbConfig;
use crate::settings::Settings;

/// What the checks look at, and how long they may take.
pub(super) struct Examination {
    /// The settings, with defaults in the place of those that cannot be used.
    pub(super) settings: Settings,
    /// The development server.
    pub(super) devdb: DevDbConfig,
    /// Writes the commands to go on with.
    pub(super) next: Next,
    /// The deadline of every check.
    pub(super) end: Instant,
    /// The time until then.
    pub(super) patience: Duration,
}

impl Examination {
    /// Runs a check, up to the deadline.
    pub(super) async fn within(
        &self,
        check: &'static str,
        found: impl Future<Output = Vec<Finding>>,
    ) -> Vec<Finding> {
        tokio::time::timeout_at(self.end, found)
            .await
            .unwrap_or_else(|_| {
                let what = format!("could not be looked at within {:?}", self.patience);
                vec![Finding::warn(
                    check,
                    what,
                    self.next.kodo("doctor --patience 60"),
                )]
            })
    }
}

/// Runs a check that blocks (a file system that hangs, a large `/proc`) on a thread that may outlive the examination.
pub(super) async fn aside(
    check: &'static str,
    work: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            vec![Finding::warn(
                check,
                format!("could not be looked at: {error}"),
                None,
            )]
        })
}
