//! Beside the jail: with this machine's network and files in reach, as another user where this process is user 0.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use async_trait::async_trait;
use kodo_jail::{lifeline_command, unprivileged_user};
use kodo_planner::{OpenCodeLauncher, OpenCodeProcess, Start, Stream};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What it prints before the address on which it listens.
const LISTENS: &str = "listening on http://127.0.0.1:";

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
        let child = Arc::new(Mutex::new(None));
        let (tell_port, told_port) = oneshot::channel();
        let (tell_end, ended) = watch::channel(None);
        let held = Arc::clone(&child);
        // A thread of its own: the program dies with the thread that started it.
        let thread = thread::Builder::new().name("kodo-opencode".to_owned());
        let spawned = thread.spawn(move || {
            let end = match command.spawn() {
                Ok(child) => keep(child, &held, tell_port),
                Err(error) => error.to_string(),
            };
            let _ = tell_end.send(Some(end));
        });
        spawned.map_err(|error| format!("no thread: {error}"))?;
        let process = Unjailed {
            listener,
            child,
            api: told_port.await.ok(),
            ended,
            _home: home,
        };
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

/// Holds the child to its end; says on which port it listens as soon as it does.
fn keep(mut child: Child, held: &Mutex<Option<Child>>, tell_port: oneshot::Sender<u16>) -> String {
    let stdout = child.stdout.take();
    *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    let mut tell_port = Some(tell_port);
    let mut last = String::new();
    // Reads to the end, so that it can always print; a line is as long as it makes one.
    for line in stdout
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines)
    {
        let Ok(line) = line else { break };
        let port = line.split_once(LISTENS).map(|(_, port)| port.trim());
        if let Some(port) = port.and_then(|port| port.parse().ok())
            && let Some(tell_port) = tell_port.take()
        {
            let _ = tell_port.send(port);
        }
        last = line;
    }
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    match held.as_mut().map(Child::wait) {
        Some(Ok(status)) => format!("it ended with {status}; the last that it printed: {last}"),
        _ => "it was ended".to_owned(),
    }
}

#[derive(Debug)]
struct Unjailed {
    listener: TcpListener,
    child: Arc<Mutex<Option<Child>>>,
    api: Option<u16>,
    ended: watch::Receiver<Option<String>>,
    _home: TempDir,
}

impl Drop for Unjailed {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = child.as_mut() {
            let _ = child.kill();
            // Reaped here, since the home goes next, and it must not write to it any more.
            let _ = child.wait();
        }
    }
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
