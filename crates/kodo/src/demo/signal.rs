//! Interrupting a demonstration cleans up after it.

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a story, unless a signal comes first. Either way the story is dropped, and its services with it.
pub(super) async fn unless_interrupted<T>(
    story: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        told = story => told,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
