//! Making a Postgres answer, by whatever way is open.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::binaries::{self, Binaries, OLDEST};
use crate::cluster::Cluster;
use crate::config::{DevDbConfig, Provider};
use crate::docker::Docker;
use crate::error::DevDbError;
use crate::fetch::Registry;
use crate::identity::Identity;
use crate::initdb;
use crate::lock::Lock;
use crate::places::Places;
use crate::postmaster::Postmaster;
use crate::probe::{Probe, Readiness, probe, wait_until_ready};
use crate::status::running;

/// How long a server that answers may take until it accepts: it may be recovering from a crash.
const ACCEPT: Duration = Duration::from_secs(60);

/// What [`up()`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Where the server comes from.
    pub outcome: Outcome,
    /// One line for a person.
    pub message: String,
    /// Was it started by this call? Whoever started it stops it.
    pub started: bool,
}

/// Where the server that answers comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was there, and is none of ours.
    Existing,
    /// It was there, on a cluster of our data folder: an earlier call started it.
    Adopted,
    /// Docker compose started the service `db`.
    Docker,
    /// We started a private cluster.
    Started {
        /// Such as `15.18`.
        version: String,
        /// The cluster.
        data_dir: PathBuf,
        /// The folder of the binaries it runs by.
        source: String,
    },
}

/// Makes a Postgres accept connections at the configured address.
///
/// Calling it again is cheap and changes nothing; two calls at once do not collide.
/// The server outlives the caller; [`down`](crate::down()) stops it.
///
/// # Errors
///
/// If none can be had; each error says what to do.
pub async fn up(config: &DevDbConfig) -> Result<Up, DevDbError> {
    let address = config.address();
    let first = probe(&config.host, config.port).await;
    if first == Probe::Postgres
        && let Some(up) = existing(config).await?
    {
        return Ok(up);
    }
    let Some(listen) = config.loopback() else {
        return Err(if first == Probe::Stranger {
            DevDbError::Stranger { address }
        } else {
            DevDbError::NotLoopback { address }
        });
    };
    if first != Probe::Stranger && config.provider == Provider::Existing {
        return Err(DevDbError::NotThere { address });
    }
    // A stranger may be Docker's proxy in front of a container that another call is just starting;
    // that call holds the lock. Nobody can hold one that does not exist.
    if first == Probe::Stranger && Places::find(&config.data_dir).is_none() {
        return Err(DevDbError::Stranger { address });
    }

    let places = Places::make(&config.data_dir)?;
    let _lock = Lock::acquire(&places.lock()).await?;
    match probe(&config.host, config.port).await {
        Probe::Stranger => return Err(DevDbError::Stranger { address }),
        Probe::Nothing if config.provider == Provider::Existing => {
            return Err(DevDbError::NotThere { address });
        }
        Probe::Nothing => {}
        Probe::Postgres => {
            if let Some(up) = existing(config).await? {
                return Ok(up);
            }
        }
    }
    start(config, &places, listen).await
}

/// Something that speaks Postgres answers: waits until it is ready for us. `None` if it went away, having been about to stop.
async fn existing(config: &DevDbConfig) -> Result<Option<Up>, DevDbError> {
    match wait(config).await {
        Readiness::Ready => {}
        Readiness::Gone => return Ok(None),
        Readiness::NotYet => return Err(not_accepting(config, String::new())),
    }
    let own = Places::find(&config.data_dir)
        .filter(|_| config.loopback().is_some())
        .and_then(|places| running(&places))
        .filter(|server| server.port == config.port);
    Ok(Some(match own {
        Some(own) => adopted(config, own.major, &own.data_dir),
        None => Up {
            outcome: Outcome::Existing,
            message: format!(
                "db: using the Postgres that answers at {}",
                config.address()
            ),
            started: false,
        },
    }))
}

fn adopted(config: &DevDbConfig, major: u32, data_dir: &Path) -> Up {
    Up {
        outcome: Outcome::Adopted,
        message: format!(
            "db: Postgres {major} is up at {}, data in {}",
            config.address(),
            data_dir.display()
        ),
        started: false,
    }
}

async fn wait(config: &DevDbConfig) -> Readiness {
    wait_until_ready(&config.host, config.port, &config.user, ACCEPT).await
}

fn not_accepting(config: &DevDbConfig, log: String) -> DevDbError {
    DevDbError::NotAccepting {
        address: config.address(),
        seconds: ACCEPT.as_secs(),
        log,
    }
}

/// Nothing is there: start one. The caller holds the lock.
async fn start(config: &DevDbConfig, places: &Places, listen: IpAddr) -> Result<Up, DevDbError> {
    let mut tried = Vec::new();
    let docker = match config.provider {
        Provider::Docker => true,
        Provider::Auto => config.compose_file.is_some(),
        _ => false,
    };
    if docker {
        match start_container(config, places).await {
            Err(error) if config.provider == Provider::Auto => tried.push(error.to_string()),
            result => return result,
        }
    }
    let identity = Identity::detect().await?;
    let base = places.base(identity)?;
    let binaries = find_binaries(config.provider, &base, identity, tried).await?;
    start_cluster(config, &base, &binaries, identity, listen).await
}

async fn start_container(config: &DevDbConfig, places: &Places) -> Result<Up, DevDbError> {
    let docker = Docker::default();
    docker.up(config, &places.compose_marker()).await?;
    if wait(config).await != Readiness::Ready {
        // Healthy in there and not to be reached from here: an engine on another machine.
        docker.down(&places.compose_marker()).await?;
        return Err(not_accepting(config, String::new()));
    }
    Ok(Up {
        outcome: Outcome::Docker,
        message: format!(
            "db: started service db with docker compose at {}",
            config.address()
        ),
        started: true,
    })
}

/// Binaries that `provider` allows: on the machine, fetched before, else fetched now. `tried` says what has failed so far.
async fn find_binaries(
    provider: Provider,
    base: &Path,
    identity: Identity,
    mut tried: Vec<String>,
) -> Result<Binaries, DevDbError> {
    let registries: &[Registry] = match provider {
        Provider::Auto => &[Registry::Npm, Registry::Pip],
        Provider::Npm => &[Registry::Npm],
        Provider::Pip => &[Registry::Pip],
        Provider::Existing | Provider::Docker | Provider::Local => &[],
    };
    let mut candidates = Vec::new();
    if matches!(provider, Provider::Auto | Provider::Local) {
        candidates = binaries::on_machine(identity).await;
        if candidates.is_empty() {
            tried.push(format!(
                "binaries on this machine: none from version {OLDEST} up"
            ));
        }
    }
    for registry in registries {
        candidates.extend(registry.fetched(base, identity).await);
    }
    if let Some(chosen) = binaries::choose(&candidates, |major| Cluster::new(base, major).exists())
    {
        return Ok(chosen.clone());
    }
    for registry in registries {
        match registry.fetch(base, identity).await {
            Ok(binaries) => return Ok(binaries),
            Err(error) if provider == Provider::Auto => tried.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    match provider {
        Provider::Local => Err(DevDbError::NoLocalBinaries { oldest: OLDEST }),
        _ => Err(DevDbError::NoneFound {
            tried: tried.join("; "),
        }),
    }
}

async fn start_cluster(
    config: &DevDbConfig,
    base: &Path,
    binaries: &Binaries,
    identity: Identity,
    listen: IpAddr,
) -> Result<Up, DevDbError> {
    let cluster = Cluster::new(base, binaries.major);
    if let Postmaster::Alive { port, .. } = cluster.postmaster() {
        if port != config.port && port != 0 {
            return Err(DevDbError::OtherPort {
                path: cluster.folder().to_owned(),
                running: port,
            });
        }
        // Somebody started it a moment ago, without our lock.
        return match wait_for_port(config).await {
            Readiness::Ready => Ok(adopted(config, cluster.major(), cluster.folder())),
            _ => Err(not_accepting(config, cluster.log_tail(0))),
        };
    }
    if !cluster.exists() {
        initdb::create(&cluster, binaries, identity, &config.user, &config.password).await?;
    }
    cluster.clear().await?;
    cluster
        .start(binaries, identity, listen, config.port)
        .await?;
    if wait(config).await != Readiness::Ready {
        return Err(not_accepting(config, cluster.log_tail(0)));
    }
    Ok(Up {
        message: format!(
            "db: started Postgres {} at {}, data in {}",
            binaries.version,
            config.address(),
            cluster.folder().display()
        ),
        outcome: Outcome::Started {
            version: binaries.version.clone(),
            data_dir: cluster.folder().to_owned(),
            source: binaries.bin.display().to_string(),
        },
        started: true,
    })
}

/// As [`wait`], for a server that may not have opened its port yet.
async fn wait_for_port(config: &DevDbConfig) -> Readiness {
    let end = Instant::now() + ACCEPT;
    loop {
        let readiness = wait(config).await;
        if readiness != Readiness::Gone || Instant::now() >= end {
            return readiness;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
