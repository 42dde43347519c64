//! Logs: readable on a terminal, one JSON object a line everywhere else. Always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::LogSettings;

/// Installs the subscriber. Called once, by commands that run for long.
pub(crate) fn init(settings: &LogSettings) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter())
        .with_writer(std::io::stderr);
    let watched = std::io::stderr().is_terminal();
    if settings.json().unwrap_or(!watched) {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_target(false).with_ansi(watched).init();
    }
}

/// Installs a subscriber for commands that end soon: what they are doing meanwhile, without the trimmings of
/// a log.
pub(crate) fn init_for_people() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("kodo::devdb=info,warn"))
        .with_writer(std::io::stderr)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .init();
}
