//! Starts OpenCode outside of the jail: with this machine's network and files in reach.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::child::{ChildProcess, spawn};
use super::launch::{OpenCodeLauncher, OpenCodeProcess, Start, Stream};

/// Starts OpenCode without a jail.
pub struct UnjailedOpenCode {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    user: Option<u32>,
}

impl fmt::Debug for UnjailedOpenCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnjailedOpenCode").finish_non_exhaustive()
    }
}

impl UnjailedOpenCode {
    /// `command` returns the command that runs the program, as `user` if there is one, and ends it with this process.
    /// Arguments are added to it. That user gets the home folder.
    #[must_use]
    pub fn new(user: Option<u32>, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self {
            command: Box::new(command),
            user,
        }
    }
}

#[async_trait]
impl OpenCodeLauncher for UnjailedOpenCode {
    async fn launch(&self, start: Start) -> Result<Box<dyn OpenCodeProcess>, String> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.map_err(|error| format!("no port for the model proxy: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?;
        let home = home(&start, port.port(), self.user)
            .map_err(|error| format!("its home folder cannot be made: {error}"))?;
        let mut command = (self.command)();
        command
            .args(start.arguments(0))
            .env_clear()
            .envs(start.environment(home.path()))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // From here on the child ends with its handle, also if this future is dropped.
        let (child, events) = spawn(command).map_err(|error| format!("no thread: {error}"))?;
        let mut process = Unjailed {
            listener,
            api: None,
            ended: events.end,
            _child: child,
            _home: home,
        };
        process.api = events.port.await.ok();
        match process.api {
            Some(_) => Ok(Box::new(process)),
            None => Err(process.ended().await),
        }
    }
}

/// Makes a folder that nobody else can read, with the files that OpenCode needs.
fn home(start: &Start, proxy_port: u16, user: Option<u32>) -> io::Result<TempDir> {
    let home = tempfile::Builder::new()
        .prefix("kodo-opencode-")
        .tempdir()?;
    for (name, content) in start.files(proxy_port) {
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

/// Makes the user the owner of a folder and everything in it.
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
    // Dropped before the home folder, so that nothing writes to it any more.
    _child: ChildProcess,
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
