//! SIGINT and SIGTERM end what is shown or run, so that its caller can clean up.

use tokio::signal::unix::{SignalKind, signal};

/// A signal came.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(&'static str);

/// Runs a story, unless a signal comes first. Either way the story is dropped, and its services with it.
///
/// # Errors
/// [`Interrupted`], or what the story fails with.
pub(crate) async fn unless_interrupted<T>(
    story: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        told = story => told,
        _ = interrupt.recv() => Err(Interrupted("interrupted").into()),
        _ = terminate.recv() => Err(Interrupted("terminated").into()),
    }
}
