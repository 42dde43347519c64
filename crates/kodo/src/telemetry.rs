//! Logs: readable on a terminal, one JSON object a line everywhere else. Always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::environment;

/// What is logged where `RUST_LOG` says nothing: our own lines, and warnings of everybody else. The engine
/// tells of each retry and each recovered batch at `warn` and `info`; the latter repeats ours.
const DEFAULT_FILTER: &str = "info,dbos=warn,sqlx=error,hyper=warn";

/// Installs the subscriber. Called once, by commands that run for long.
pub(crate) fn init() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let json = match environment::text("LOG_FORMAT").as_deref() {
        Some("json") => true,
        Some("text") => false,
        _ => !std::io::stderr().is_terminal(),
    };
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
}

/// Installs a subscriber for commands that end soon: what they are doing meanwhile, without the trimmings of
/// a log.
pub(crate) fn init_for_people() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("kodo_devdb=info,warn"))
        .with_writer(std::io::stderr)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .init();
}
