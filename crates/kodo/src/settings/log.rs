//! The log's settings.

use tracing_subscriber::EnvFilter;

use super::Flags;

/// What is logged where `RUST_LOG` says nothing: our own lines, and warnings of everybody else. The engine
/// tells of each retry and each recovered batch at `warn` and `info`; the latter repeats ours.
const DEFAULT_FILTER: &str = "info,dbos=warn,sqlx=error,hyper=warn";

/// What is logged, and how.
#[derive(Debug, Clone)]
pub(crate) struct LogSettings {
    /// Has been read once: see [`LogSettings::filter`].
    filter: String,
    /// Whether lines are JSON; where nobody says, by whether somebody watches.
    pub(crate) json: Option<bool>,
}

impl LogSettings {
    pub(super) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let filter = flags.rust_log();
        if filter.given && EnvFilter::builder().parse(&filter.value).is_err() {
            return filter.refuse("a filter such as info or info,kodo_engine=debug");
        }
        let format = flags.log_format();
        if format.given {
            format.one_of(&["text", "json"])?;
        }
        Ok(Self {
            filter: match filter.given {
                true => filter.value,
                false => DEFAULT_FILTER.to_owned(),
            },
            json: format.given.then(|| format.value == "json"),
        })
    }

    /// The filter, which the subscriber consumes.
    pub(crate) fn filter(&self) -> EnvFilter {
        EnvFilter::new(&self.filter)
    }
}
