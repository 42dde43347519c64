//! SIGINT and SIGTERM end what is shown or run, so that its caller can clean up.

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a story, unless a signal comes first. Either way the story is dropped, and its services with it.
pub(crate) async fn unless_interrupted<T>(
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
