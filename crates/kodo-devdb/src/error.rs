//! Everything that can go wrong, each with what to do about it.

use std::io;
use std::path::PathBuf;

/// Why there is no database, and what the reader can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevDbError {
    /// The configured host is another machine, and nothing answers there.
    #[error(
        "no Postgres answers at {address}, and none can be started there from here: \
         start it on that machine, or set DB_HOST=127.0.0.1"
    )]
    NotLoopback {
        /// Where it should have been.
        address: String,
    },

    /// Something listens on the port that does not speak Postgres.
    #[error(
        "something that is not Postgres listens at {address}: stop it, or set DB_PORT to a free port"
    )]
    Stranger {
        /// The address in question.
        address: String,
    },

    /// `DB_PROVIDER=existing`, and nothing answers.
    #[error("no Postgres answers at {address}, and DB_PROVIDER=existing forbids starting one")]
    NotThere {
        /// Where it should have been.
        address: String,
    },

    /// A Postgres is there but does not take connections in time, for example since it recovers from a crash.
    #[error("the Postgres at {address} does not accept connections after {seconds} s{log}")]
    NotAccepting {
        /// Where it is.
        address: String,
        /// How long we waited.
        seconds: u64,
        /// The last lines of its log, if it is ours.
        log: String,
    },

    /// Every way of getting a server failed.
    #[error(
        "no Postgres: install it (Debian, Ubuntu: apt-get install postgresql), or start Docker, \
         or set DB_HOST and DB_PORT to a server that runs. Tried: {tried}"
    )]
    NoneFound {
        /// Each way and why it failed.
        tried: String,
    },

    /// Docker was asked for by name and cannot be used.
    #[error("Docker cannot be used: {reason}; start it, or choose another DB_PROVIDER")]
    DockerUnavailable {
        /// What it said.
        reason: String,
    },

    /// `docker compose` failed.
    #[error("docker compose failed: {output}")]
    Docker {
        /// The last lines it printed.
        output: String,
    },

    /// No usable binaries on the machine, and no other way allowed.
    #[error(
        "no Postgres binaries from version {oldest} up on this machine: install them \
         (Debian, Ubuntu: apt-get install postgresql), or set PG_BIN to the folder that holds initdb"
    )]
    NoLocalBinaries {
        /// The oldest major version that will do.
        oldest: u32,
    },

    /// Binaries could not be fetched.
    #[error("cannot get Postgres from {source_name}: {reason}")]
    Fetch {
        /// Which registry.
        source_name: &'static str,
        /// What went wrong.
        reason: String,
    },

    /// The data folder, or something in it, cannot be used.
    #[error("{}: {source}; the data folder must be writable for this user", path.display())]
    DataDir {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Another process has been bringing the database up or down for too long.
    #[error(
        "another process has held {} for {seconds} s: wait for it or end it, then try again",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },

    /// The cluster of this data folder already runs, on another port.
    #[error(
        "the cluster in {} already runs on port {running}: set DB_PORT={running}, or stop it with db:down first",
        path.display()
    )]
    OtherPort {
        /// The cluster's folder.
        path: PathBuf,
        /// The port it is on.
        running: u16,
    },

    /// Processes of a dead server still live in the cluster's folder.
    #[error(
        "processes of a dead Postgres still use {}: {pids}; wait for them or end them, then try again",
        path.display()
    )]
    StillInUse {
        /// The cluster's folder.
        path: PathBuf,
        /// Their process ids.
        pids: String,
    },

    /// `initdb` failed.
    #[error("initdb failed: {output}")]
    InitDb {
        /// The last lines it printed.
        output: String,
    },

    /// The server did not start.
    #[error("Postgres did not start{log}")]
    Start {
        /// The last lines of its log.
        log: String,
    },

    /// The server did not stop.
    #[error("Postgres (process {pid}) did not stop within {seconds} s{log}")]
    Stop {
        /// Its process id.
        pid: i32,
        /// How long we waited.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },

    /// Postgres refuses to run as root, and there is no way here to be somebody else.
    #[error(
        "Postgres refuses to run as root, and neither unshare nor setpriv can change the user here: \
         run this as an ordinary user, or set DB_HOST and DB_PORT to a server that runs"
    )]
    Root,

    /// Not a password that a new cluster can be given.
    #[error("DB_PASSWORD must be one non-empty line to create a private cluster")]
    Password,

    /// A program could not be run at all.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },

    /// A program took too long and was ended.
    #[error("{program} was not done after {seconds} s")]
    Deadline {
        /// Its name.
        program: String,
        /// How long it was given.
        seconds: u64,
    },
}

impl DevDbError {
    /// For `map_err`: an I/O error on something in the data folder.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::DataDir { path, source }
    }
}
