//! Stopping what [`up`](crate::up()) started, and nothing else.

use crate::config::DevDbConfig;
use crate::docker::Docker;
use crate::error::DevDbError;
use crate::lock::Lock;
use crate::places::Places;
use crate::postmaster::Postmaster;
use crate::probe::{Probe, probe};

/// What [`down()`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Was anything stopped?
    pub stopped: bool,
    /// One line for a person.
    pub message: String,
}

/// Stops every server on a cluster of this data folder, and the container if [`up`](crate::up()) started it.
///
/// A server that others started is left alone, also when it answers at the configured address.
///
/// # Errors
///
/// If something of ours runs and does not stop.
pub async fn down(config: &DevDbConfig) -> Result<Down, DevDbError> {
    let mut done = Vec::new();
    if let Some(places) = Places::find(&config.data_dir) {
        let _lock = Lock::acquire(&places.lock()).await?;
        for cluster in places.clusters() {
            if let Postmaster::Alive { pid, port } = cluster.postmaster() {
                cluster.stop(pid).await?;
                done.push(format!(
                    "stopped Postgres {} on port {port}",
                    cluster.major()
                ));
            }
        }
        if Docker::default().down(&places.compose_marker()).await? {
            done.push("stopped service db of docker compose".to_owned());
        }
    }
    let stopped = !done.is_empty();
    let message = if stopped {
        format!("db: {}", done.join(", "))
    } else if probe(&config.host, config.port).await == Probe::Postgres {
        format!(
            "db: the Postgres at {} was not started from here: left alone",
            config.address()
        )
    } else {
        "db: nothing to stop".to_owned()
    };
    Ok(Down { stopped, message })
}
