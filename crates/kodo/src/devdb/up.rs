//! `up`: makes a Postgres answer, by whichever way works.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::binaries::{self, Binaries, OLDEST};
use super::cluster::Cluster;
use super::fetch::Registry;
use super::identity::Identity;
use super::places::Places;
use super::postmaster::Postmaster;
use super::probe::{Probe, Readiness, probe, wait_until_ready};
use super::{DevDbConfig, Provider, docker, initdb, running};

/// How long a server that answers may take until it accepts connections: it may be recovering from a crash.
const ACCEPT: Duration = Duration::from_secs(60);

/// What [`up()`] did.
#[derive(Debug)]
pub(crate) struct Up {
    /// Whether this call started the server. Whoever started it stops it.
    pub(crate) started: bool,
    /// One line for a person.
    pub(crate) message: String,
}

impl Up {
    fn there(message: String) -> Self {
        Self {
            started: false,
            message,
        }
    }
}

/// Makes a Postgres accept connections at the configured address.
///
/// Calling it again is cheap and changes nothing; two calls at once do not collide. The server outlives the caller.
///
/// # Errors
/// If no server can be had; each error says what to do.
pub(crate) async fn up(config: &DevDbConfig) -> anyhow::Result<Up> {
    if let Some(up) = answering(config, false).await? {
        return Ok(up);
    }
    let Some(listen) = config.loopback() else {
        bail!(
            "no Postgres answers at {}, and none can be started there from here: start it on that machine, or set \
             DB_HOST=127.0.0.1",
            config.address()
        );
    };
    let places = Places::create(&config.data_dir)?;
    let _lock = places.lock().await?;
    if let Some(up) = answering(config, true).await? {
        return Ok(up);
    }
    start(config, &places, listen).await
}

/// The Postgres that answers, if one does; an error if something else does, or if none may be started. Without the lock,
/// somebody who has it may be about to change that.
async fn answering(config: &DevDbConfig, locked: bool) -> anyhow::Result<Option<Up>> {
    let address = config.address();
    match probe(&config.host, config.port).await {
        Probe::Postgres => existing(config).await,
        // It may be Docker's proxy in front of a container that another call is just starting; that call holds the lock,
        // in a data folder that exists.
        Probe::Stranger
            if !locked
                && config.loopback().is_some()
                && Places::find(&config.data_dir).is_some() =>
        {
            Ok(None)
        }
        Probe::Stranger => bail!(
            "something that is not Postgres listens at {address}: stop it, or set DB_PORT to a free port"
        ),
        Probe::Nothing if config.provider == Provider::Existing && config.loopback().is_some() => {
            bail!("no Postgres answers at {address}, and DB_PROVIDER=existing forbids starting one")
        }
        Probe::Nothing => Ok(None),
    }
}

/// Waits until the Postgres that answers is ready. Returns `None` if it went away, because it was about to stop.
async fn existing(config: &DevDbConfig) -> anyhow::Result<Option<Up>> {
    match wait(config).await {
        Readiness::Ready => {}
        Readiness::Gone => return Ok(None),
        Readiness::NotYet => bail!(not_accepting(config, "")),
    }
    let own = Places::find(&config.data_dir)
        .filter(|_| config.loopback().is_some())
        .and_then(|places| running(&places))
        .filter(|server| server.port == config.port);
    Ok(Some(match own {
        Some(own) => adopted(config, own.major, &own.data_dir),
        None => Up::there(format!(
            "db: using the Postgres that answers at {}",
            config.address()
        )),
    }))
}

/// A server that an earlier call started.
fn adopted(config: &DevDbConfig, major: u32, data_dir: &Path) -> Up {
    Up::there(format!(
        "db: Postgres {major} is up at {}, data in {}",
        config.address(),
        data_dir.display()
    ))
}

async fn wait(config: &DevDbConfig) -> Readiness {
    wait_until_ready(&config.host, config.port, &config.user, ACCEPT).await
}

fn not_accepting(config: &DevDbConfig, log: &str) -> String {
    format!(
        "the Postgres at {} does not accept connections after {} s{log}",
        config.address(),
        ACCEPT.as_secs()
    )
}

/// Starts a server, because none answers. The caller holds the lock.
async fn start(config: &DevDbConfig, places: &Places, listen: IpAddr) -> anyhow::Result<Up> {
    let mut tried = Vec::new();
    let docker = match config.provider {
        Provider::Docker => true,
        Provider::Auto => config.compose_file.is_some(),
        _ => false,
    };
    if docker {
        match start_container(config, places).await {
            Err(error) if config.provider == Provider::Auto => tried.push(format!("{error:#}")),
            result => return result,
        }
    }
    let identity = Identity::detect().await?;
    let base = places.base(identity)?;
    let binaries = find_binaries(config.provider, &base, identity, tried).await?;
    start_cluster(config, &base, &binaries, identity, listen).await
}

async fn start_container(config: &DevDbConfig, places: &Places) -> anyhow::Result<Up> {
    docker::up("docker", config, &places.compose_marker()).await?;
    if wait(config).await != Readiness::Ready {
        // Healthy inside and not reachable from here: the engine is on another machine.
        docker::down("docker", &places.compose_marker()).await?;
        bail!(not_accepting(config, ""));
    }
    Ok(Up {
        started: true,
        message: format!(
            "db: started service db with docker compose at {}",
            config.address()
        ),
    })
}

/// Binaries that `provider` allows: on the machine, fetched before, else fetched now. `tried` says what has failed so far.
async fn find_binaries(
    provider: Provider,
    base: &Path,
    identity: Identity,
    mut tried: Vec<String>,
) -> anyhow::Result<Binaries> {
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
    // Those of a version that has a cluster already, so that its data stays in use when other binaries appear.
    let has_cluster = |binaries: &&Binaries| Cluster::new(base, binaries.major).exists();
    let chosen = candidates.iter().find(has_cluster).or(candidates.first());
    if let Some(chosen) = chosen {
        return Ok(chosen.clone());
    }
    for registry in registries {
        let fetched = registry.fetch(base, identity).await;
        match fetched.with_context(|| format!("cannot get Postgres from {}", registry.name())) {
            Err(error) if provider == Provider::Auto => tried.push(format!("{error:#}")),
            result => return result,
        }
    }
    if provider == Provider::Local {
        bail!(
            "no Postgres binaries from version {OLDEST} up on this machine: install them (Debian, Ubuntu: apt-get \
             install postgresql), or set PG_BIN to the folder that holds initdb"
        );
    }
    bail!(
        "no Postgres: install it (Debian, Ubuntu: apt-get install postgresql), or start Docker, or set DB_HOST and \
         DB_PORT to a server that runs. Tried: {}",
        tried.join("; ")
    )
}

async fn start_cluster(
    config: &DevDbConfig,
    base: &Path,
    binaries: &Binaries,
    identity: Identity,
    listen: IpAddr,
) -> anyhow::Result<Up> {
    let cluster = Cluster::new(base, binaries.major);
    if let Postmaster::Alive { port, .. } = cluster.postmaster() {
        if port != config.port && port != 0 {
            bail!(
                "the cluster in {} already runs on port {port}: set DB_PORT={port}, or stop it with db:down first",
                cluster.folder.display()
            );
        }
        // Somebody started it a moment ago without the lock; its port may not be open yet.
        let end = Instant::now() + ACCEPT;
        let mut readiness = wait(config).await;
        while readiness == Readiness::Gone && Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
            readiness = wait(config).await;
        }
        if readiness != Readiness::Ready {
            bail!(not_accepting(config, &cluster.log_tail(0)));
        }
        return Ok(adopted(config, cluster.major, &cluster.folder));
    }
    if !cluster.exists() {
        initdb::create(&cluster, binaries, identity, &config.user, &config.password).await?;
    }
    cluster.clear().await?;
    cluster
        .start(binaries, identity, listen, config.port)
        .await?;
    if wait(config).await != Readiness::Ready {
        bail!(not_accepting(config, &cluster.log_tail(0)));
    }
    Ok(Up {
        started: true,
        message: format!(
            "db: started Postgres {} at {}, data in {}",
            binaries.version,
            config.address(),
            cluster.folder.display()
        ),
    })
}
