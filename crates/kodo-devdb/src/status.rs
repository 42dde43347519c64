//! What there is, without changing it.

use std::path::PathBuf;

use crate::config::DevDbConfig;
use crate::places::Places;
use crate::postmaster::Postmaster;
use crate::probe::{Probe, probe};

/// What [`status()`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Who answers at the configured address.
    pub probe: Probe,
    /// The running server on a cluster of the data folder, whatever its port.
    pub private: Option<PrivateServer>,
    /// Did we start the service `db` of docker compose, and not stop it since?
    pub docker: bool,
    /// One line for a person.
    pub message: String,
}

/// A running server on a cluster of the data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateServer {
    /// Its process id.
    pub pid: i32,
    /// Its port.
    pub port: u16,
    /// Its major version.
    pub major: u32,
    /// Its cluster.
    pub data_dir: PathBuf,
}

/// Looks at the configured address and at the data folder. Creates and starts nothing.
pub async fn status(config: &DevDbConfig) -> Status {
    let probe = probe(&config.host, config.port).await;
    let places = Places::find(&config.data_dir);
    let private = places.as_ref().and_then(running);
    let docker = places.is_some_and(|places| places.compose_marker().exists());
    let address = config.address();
    let mut message = match probe {
        Probe::Postgres => format!("db: a Postgres answers at {address}"),
        Probe::Stranger => format!("db: something that is not Postgres listens at {address}"),
        Probe::Nothing => format!("db: nothing answers at {address}"),
    };
    if let Some(private) = &private {
        message += &format!(
            "; the private cluster in {} runs on port {}, process {}",
            private.data_dir.display(),
            private.port,
            private.pid
        );
    } else if docker {
        message += "; docker compose's service db was started from here";
    }
    Status {
        probe,
        private,
        docker,
        message,
    }
}

/// The running server of these places; if there are several, that of the newest version.
pub(crate) fn running(places: &Places) -> Option<PrivateServer> {
    places
        .clusters()
        .into_iter()
        .find_map(|cluster| match cluster.postmaster() {
            Postmaster::Alive { pid, port } => Some(PrivateServer {
                pid,
                port,
                major: cluster.major(),
                data_dir: cluster.folder().to_owned(),
            }),
            Postmaster::Absent | Postmaster::Stale => None,
        })
}
