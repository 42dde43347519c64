//! A Postgres for development: [`up()`] makes a server answer at the configured address and says in one line what it did,
//! [`down()`] stops what `up` started and nothing else, [`status()`] only looks.
//!
//! `up` uses the server that already answers, else Docker compose, else a private cluster in the data folder, run by
//! Postgres binaries of this machine, else by binaries fetched from npm or PyPI. The cluster lives in
//! `<data_dir>/pg/<major>` and outlives the process that started it; fsync is on, because a crash test has to prove what
//! a real server does.
//!
//! Environment: `PG_BIN`, a folder with `initdb`, `pg_ctl` and `postgres` that is preferred over all others; `PATH`.

mod binaries;
mod cluster;
mod command;
mod docker;
mod fetch;
mod identity;
mod initdb;
mod leftovers;
mod places;
mod postmaster;
mod probe;
#[cfg(test)]
mod tests;
mod up;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;

use cluster::Cluster;
use places::Places;
use postmaster::Postmaster;

pub(crate) use leftovers::{Leftover, leftovers};
pub(crate) use probe::Probe;
pub(crate) use up::up;

/// Where the database should be, and what may be done to bring it there.
#[derive(Clone)]
pub(crate) struct DevDbConfig {
    /// Host name, address, or the folder of a socket. A server is only ever started on a loopback address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Superuser of the private cluster or of the container.
    pub(crate) user: String,
    /// That user's password.
    pub(crate) password: String,
    /// The data folder, usually `.data`. Created when something has to be put there.
    pub(crate) data_dir: PathBuf,
    /// The compose file with the service `db`; without one, Docker is never asked.
    pub(crate) compose_file: Option<PathBuf>,
    /// Where the server may come from.
    pub(crate) provider: Provider,
}

impl DevDbConfig {
    /// The address as people write it.
    fn address(&self) -> String {
        kodo_store::address(&self.host, self.port)
    }

    /// The loopback address that a server for this configuration listens on; `None` if the host is not this machine by its
    /// name alone, because what a resolver says of other names may change.
    fn loopback(&self) -> Option<IpAddr> {
        if self.host.eq_ignore_ascii_case("localhost") {
            return Some(IpAddr::from([127, 0, 0, 1]));
        }
        self.host.parse().ok().filter(IpAddr::is_loopback)
    }
}

/// Where a server may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Provider {
    /// what answers, else docker, else local, else npm, else pip
    Auto,
    /// only a server that already answers
    Existing,
    /// Docker compose
    Docker,
    /// binaries of this machine
    Local,
    /// binaries from npm
    Npm,
    /// binaries from PyPI
    Pip,
}

/// Stops every server on a cluster of the data folder, and the container if [`up()`] started it. Returns whether anything
/// was stopped, and one line for a person.
///
/// # Errors
/// If a server or a container of ours does not stop.
pub(crate) async fn down(config: &DevDbConfig) -> anyhow::Result<(bool, String)> {
    let mut done = Vec::new();
    if let Some(places) = Places::find(&config.data_dir) {
        let _lock = places.lock().await?;
        for cluster in Cluster::all(&places) {
            if let Postmaster::Alive { pid, port } = cluster.postmaster() {
                cluster.stop(pid).await?;
                done.push(format!("stopped Postgres {} on port {port}", cluster.major));
            }
        }
        if docker::down("docker", &places.compose_marker()).await? {
            done.push("stopped service db of docker compose".to_owned());
        }
    }
    let message = if !done.is_empty() {
        format!("db: {}", done.join(", "))
    } else if probe::probe(&config.host, config.port).await == Probe::Postgres {
        format!(
            "db: the Postgres at {} was not started from here: left alone",
            config.address()
        )
    } else {
        "db: nothing to stop".to_owned()
    };
    Ok((!done.is_empty(), message))
}

/// What [`status()`] found.
pub(crate) struct Status {
    /// Who answers at the configured address.
    pub(crate) probe: Probe,
    /// The running server on a cluster of the data folder, whatever its port.
    pub(crate) private: Option<PrivateServer>,
    /// Whether `up` started the service `db` of docker compose, and `down` has not stopped it since.
    pub(crate) docker: bool,
    /// One line for a person.
    pub(crate) message: String,
}

/// A running server on a cluster of the data folder.
pub(crate) struct PrivateServer {
    /// Its process id.
    pub(crate) pid: i32,
    /// Its port.
    pub(crate) port: u16,
    /// Its major version.
    pub(crate) major: u32,
    /// Its cluster.
    pub(crate) data_dir: PathBuf,
}

/// Looks at the configured address and at the data folder. Creates and starts nothing.
pub(crate) async fn status(config: &DevDbConfig) -> Status {
    let probe = probe::probe(&config.host, config.port).await;
    let places = Places::find(&config.data_dir);
    let private = places.as_ref().and_then(running);
    let docker = places.is_some_and(|places| places.compose_marker().exists());
    let address = config.address();
    let mut message = match probe {
        Probe::Postgres => format!("db: a Postgres answers at {address}"),
        Probe::Stranger => format!("db: something that is not Postgres listens at {address}"),
        Probe::Nothing => {
            format!("db: nothing answers at {address}: DB_HOST and DB_PORT say where it is")
        }
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

/// The running server of a data folder; if there are several, the one of the newest version.
fn running(places: &Places) -> Option<PrivateServer> {
    let clusters = Cluster::all(places).into_iter();
    clusters
        .filter_map(|cluster| match cluster.postmaster() {
            Postmaster::Alive { pid, port } => Some(PrivateServer {
                pid,
                port,
                major: cluster.major,
                data_dir: cluster.folder,
            }),
            Postmaster::Absent | Postmaster::Stale => None,
        })
        .next()
}
