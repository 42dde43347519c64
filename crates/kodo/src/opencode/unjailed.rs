//! Beside the jail: with this machine's network and files in reach, as another user where this process is user 0.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use kodo_jail::{lifeline_command, unprivileged_user};
use kodo_planner::{OpenCodeLauncher, OpenCodeProcess, Start, Stream};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::kept::{Kept, keep};

/// Starts OpenCode without a jail.
#[derive(Debug)]
pub(crate) struct UnjailedOpenCode {
    program: PathBuf,
    helper: PathBuf,
}

impl UnjailedOpenCode {
    /// `helper` is a program that knows what to do with [`lifeline_command`].
    pub(crate) fn new(program: PathBuf, helper: &str) -> Self {
        Self {
            program,
            helper: helper.into(),
        }
    }
}

#[async_trait]
impl OpenCodeLauncher for UnjailedOpenCode {
    async fn launch(&self, start: Start) -> Result<Box<dyn OpenCodeProcess>, String> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.map_err(|error| format!("no port for the gate: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?;
        let user = unprivileged_user();
        let home = home(&start, port.port(), user)
            .map_err(|error| format!("its home cannot be made: {error}"))?;
        let mut command = lifeline_command(&self.helper, &self.program, user);
        command
            .args(start.arguments(0))
            .env_clear()
            .envs(start.environment(home.path()))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // From here on it ends with what holds it, also where this start is given up.
        let (kept, said) = keep(command).map_err(|error| format!("no thread: {error}"))?;
        let mut process = Unjailed {
            listener,
            api: None,
            ended: said.end,
            _kept: kept,
            _home: home,
        };
        process.api = said.port.await.ok();
        match process.api {
            Some(_) => Ok(Box::new(process)),
            None => Err(process.ended().await),
        }
    }
}

/// A folder that nobody else can look into, with what OpenCode finds there.
fn home(start: &Start, gate_port: u16, user: Option<u32>) -> io::Result<TempDir> {
    let home = tempfile::Builder::new()
        .prefix("kodo-opencode-")
        .tempdir()?;
    for (name, content) in start.files(gate_port) {
        let place = home.path().join(&name);
        if let Some(folder) = place.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        fs::write(&place, content)?;
    }
    if let Some(user) = user {
        give(home.path(), user)?;
    }
    Ok(home)
}

fn give(path: &Path, user: u32) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    chown(path, Some(user), Some(user))
}

#[derive(Debug)]
struct Unjailed {
    listener: TcpListener,
    api: Option<u16>,
    ended: watch::Receiver<Option<String>>,
    // Before the home, which goes when nobody writes to it any more.
    _kept: Kept,
    _home: TempDir,
}

#[async_trait]
impl OpenCodeProcess for Unjailed {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let port = self.api.ok_or(io::ErrorKind::NotConnected)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Box::new(TcpStream::connect(address).await?))
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.listener.accept().await?.0))
    }

    async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        end.unwrap_or_else(|| "its thread broke off".to_owned())
    }
}
