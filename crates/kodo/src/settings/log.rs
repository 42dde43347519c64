//! The settings of the log.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged if `RUST_LOG` is not set: our own lines, and warnings of everybody else. The engine logs each retry at
/// `warn` and each recovered batch at `info`; the latter repeats ours.
const DEFAULT_FILTER: &str = "info,dbos=warn,sqlx=error,hyper=warn";

/// What is logged, and how. Logs go to standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogSettings {
    /// What the service logs, such as info or info,kodo_engine=debug; if not set, info and other libraries' warnings
    #[arg(long, env, value_name = "FILTER", value_parser = filter)]
    rust_log: Option<String>,
    /// How it logs; if not set, text on a terminal and json elsewhere
    #[arg(long, env, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn filter(text: &str) -> Result<String, &'static str> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a filter such as info or info,kodo_engine=debug"),
    }
}

impl LogSettings {
    /// The filter, which the subscriber consumes.
    pub(crate) fn filter(&self) -> EnvFilter {
        EnvFilter::new(self.rust_log.as_deref().unwrap_or(DEFAULT_FILTER))
    }

    /// Whether lines are JSON, if the format is set.
    pub(crate) fn json(&self) -> Option<bool> {
        self.log_format.map(|format| format == LogFormat::Json)
    }
}
