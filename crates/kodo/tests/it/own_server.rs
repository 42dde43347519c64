//! A Postgres of a test's own, for what no test may do to the one that all share.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kodo_store::DatabaseConfig;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::support::{program, server};

/// A cluster in a temporary folder. Dropping it stops the server and removes the cluster.
pub struct OwnServer {
    /// Where it listens, or will.
    pub config: DatabaseConfig,
    folder: TempDir,
    /// Folder with the binaries of the shared server, so that none are searched or fetched.
    binaries: Option<PathBuf>,
    /// The cluster; not below `folder` where Postgres runs as another user.
    data: OnceLock<PathBuf>,
}

impl OwnServer {
    /// One that is still down: nothing listens on its port.
    pub async fn new() -> Self {
        let mut config = server();
        config.host = "127.0.0.1".to_owned();
        config.port = free_port();
        Self {
            config,
            folder: tempfile::tempdir().expect("a temporary folder"),
            binaries: binaries_of_shared_server().await,
            data: OnceLock::new(),
        }
    }

    /// One that is up.
    pub async fn started() -> Self {
        let new = Self::new().await;
        new.up();
        new
    }

    /// One that is up and asks nobody for a password. To answer that costs a client 4096 rounds of HMAC for every
    /// connection, which is most of what the start of a debug build costs: too much for a test that starts hundreds.
    pub async fn trusting() -> Self {
        let new = Self::started().await;
        let rules = new.data.get().expect("started").join("pg_hba.conf");
        std::fs::write(rules, "host all all 127.0.0.1/32 trust\n").expect("pg_hba.conf");
        let options = new.config.connect_options("kodo-it");
        let mut connection = PgConnection::connect_with(&options).await.expect("up");
        sqlx::query("SELECT pg_reload_conf()")
            .execute(&mut connection)
            .await
            .expect("a reload");
        new
    }

    /// Its cluster, once it was started.
    pub fn data(&self) -> &Path {
        self.data.get().expect("started")
    }

    /// Starts it, as `kodo db up` does.
    pub fn up(&self) {
        let said = self.kodo_db("up");
        let (_, data) = said.trim_end().rsplit_once("data in ").expect(&said);
        self.data.get_or_init(|| PathBuf::from(data));
    }

    /// Stops it in good order, cutting every connection.
    pub fn down(&self) {
        self.kodo_db("down");
    }

    /// What `pg_ctl stop -m immediate` does: no checkpoint, no farewell; the next start recovers.
    pub fn kill(&self) {
        let pid_file = self.data.get().expect("started").join("postmaster.pid");
        let text = std::fs::read_to_string(pid_file).expect("postmaster.pid");
        let pid = text.lines().next().and_then(|line| line.parse().ok());
        let pid = pid.and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::QUIT).expect("SIGQUIT");
    }

    /// Whether something listens on its port.
    pub fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.config.port)).is_ok()
    }

    /// `kodo` with these arguments, told where this server is or may be.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("DB_HOST", &self.config.host)
            .env("DB_PORT", self.config.port.to_string())
            .env("DB_PROVIDER", "auto")
            .env("KODO_DATA_DIR", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some(binaries) = &self.binaries {
            command.env("PG_BIN", binaries);
        }
        command
    }

    fn kodo_db(&self, verb: &str) -> String {
        let output = self.command(&["db", verb]).output().expect("kodo db");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "kodo db {verb}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.command(&["db", "down"]).output();
        if let Some(data) = self.data.get() {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

/// A port that was free a moment ago, and that nobody gets who does not ask for it: from below the range out of which
/// the system gives ports to whoever asks for any. A server that is killed finds it free when it comes back, however
/// many services and connections there are.
pub fn free_port() -> u16 {
    const FROM: u16 = 15_000;
    const USUALLY: u16 = 32_768;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let given_out_from = range
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|&first| first > FROM)
        .unwrap_or(USUALLY);
    let mut tries = std::iter::repeat_with(|| fastrand::u16(FROM..given_out_from)).take(1000);
    tries
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}

/// Where the shared server's programs are, if they are on this machine: the first word of `postmaster.opts`.
async fn binaries_of_shared_server() -> Option<PathBuf> {
    let options = server().connect_options("kodo-it");
    let mut connection = PgConnection::connect_with(&options).await.ok()?;
    let command: String = sqlx::query_scalar("SELECT pg_read_file('postmaster.opts')")
        .fetch_one(&mut connection)
        .await
        .ok()?;
    let program = Path::new(command.split_whitespace().next()?);
    let binaries = program.parent()?;
    binaries
        .join("initdb")
        .exists()
        .then(|| binaries.to_owned())
}
