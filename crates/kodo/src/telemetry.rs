//! Logs: readable on a terminal, one JSON object a line everywhere else. Always on standard error.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::log_writer::LogWriter;
use crate::settings::LogSettings;

/// The log of this process, once it has one.
static LOG: OnceLock<LogWriter> = OnceLock::new();

/// Installs the subscriber. Called once, by commands that run for long. Returns the number of lines that are lost because
/// they cannot be written.
pub(crate) fn init(settings: &LogSettings) -> anyhow::Result<Arc<AtomicU64>> {
    let log = writer()?;
    let lost = log.lost();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter())
        .with_writer(log);
    let watched = std::io::stderr().is_terminal();
    if settings.json().unwrap_or(!watched) {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_target(false).with_ansi(watched).init();
    }
    Ok(lost)
}

/// Installs a subscriber for commands that end soon: what they are doing meanwhile, without the trimmings of
/// a log.
pub(crate) fn init_for_people() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("kodo::devdb=info,warn"))
        .with_writer(writer()?)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .init();
    Ok(())
}

/// Waits until what was logged is written, in bounded time.
pub(crate) fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

fn writer() -> anyhow::Result<LogWriter> {
    let log = LogWriter::start(std::io::stderr()).context("the log")?;
    Ok(LOG.get_or_init(|| log).clone())
}
