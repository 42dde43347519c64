//! A service as a child process.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::Client;

/// How long a start may take. Generous: the first one on a database migrates it, on a machine that is busy.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two looks at `/readyz`.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long the last lines of a process that is over may take.
const READ_OUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many log lines are kept for a post-mortem.
const LOG_LINES: usize = 200;

/// How to start a service.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// The `kodo` binary.
    pub program: PathBuf,
    /// Port of the product API; 0 lets the system choose.
    pub port: u16,
    /// Port of the admin API; 0 lets the system choose.
    pub admin_port: u16,
    /// Environment beside this process's own.
    pub environment: Vec<(String, String)>,
    /// A file that all it logs is added to.
    pub log_file: Option<PathBuf>,
}

impl ServiceOptions {
    /// A service of `program` on ports that the system chooses.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            port: 0,
            admin_port: 0,
            environment: Vec::new(),
            log_file: None,
        }
    }

    /// The same with one more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// The same with more environment variables.
    #[must_use]
    pub fn envs(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }
}

/// A running service. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: Arc<Mutex<Log>>,
    reader: Option<JoinHandle<()>>,
    /// Port of the product API.
    pub port: u16,
    /// Port of the admin API.
    pub admin_port: u16,
}

/// The last lines, and who wants the next ones.
#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    followers: Vec<UnboundedSender<String>>,
}

impl Log {
    fn push(&mut self, line: String) {
        self.followers
            .retain(|follower| follower.send(line.clone()).is_ok());
        if self.lines.len() == LOG_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(log: &Mutex<Log>) -> String {
    let lines = &lock(log).lines;
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn follow(log: &Mutex<Log>) -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    lock(log).followers.push(sender);
    receiver
}

/// Reads what a service logs, to its end.
async fn read(stderr: ChildStderr, log: Arc<Mutex<Log>>, mut file: Option<File>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(file) = &mut file {
            // A log that cannot be written is no reason to stop what is tested.
            let _ = writeln!(file, "{line}");
        }
        lock(&log).push(line);
    }
    lock(&log).followers.clear();
}

impl Service {
    /// Starts a service and waits until its ports are bound. It need not be ready then.
    ///
    /// # Errors
    /// If it cannot be run, gives up, or has not bound its ports in time; then with the last lines of its log.
    pub async fn spawn(options: &ServiceOptions) -> anyhow::Result<Self> {
        let mut child = Command::new(&options.program)
            .arg("serve")
            .env("LOG_FORMAT", "json")
            .env("PORT", options.port.to_string())
            .env("ADMIN_PORT", options.admin_port.to_string())
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", options.program.display()))?;
        let log = Arc::new(Mutex::<Log>::default());
        let mut lines = follow(&log);
        let file = options.log_file.as_ref();
        let file = file.map(|file| File::options().create(true).append(true).open(file));
        let (file, stderr) = (file.transpose()?, child.stderr.take());
        let reader = stderr.map(|stderr| tokio::spawn(read(stderr, Arc::clone(&log), file)));
        let bound = async {
            while let Some(line) = lines.recv().await {
                if let Some(ports) = listening(&line) {
                    return Some(ports);
                }
            }
            None
        };
        match tokio::time::timeout(READY_TIMEOUT, bound).await {
            Ok(Some((port, admin_port))) => Ok(Self {
                child,
                log,
                reader,
                port,
                admin_port,
            }),
            // The log ended without the line: so did the process.
            Ok(None) => bail!(ended(child.wait().await?, &text(&log))),
            Err(_) => bail!(not_ready(&text(&log))),
        }
    }

    /// Starts a service and waits until it is ready.
    ///
    /// # Errors
    /// As [`Service::spawn`] and [`Service::ready`].
    pub async fn start(options: &ServiceOptions) -> anyhow::Result<Self> {
        let mut service = Self::spawn(options).await?;
        service.ready().await?;
        Ok(service)
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// If it ends before, or is not ready in time; with the last lines of its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let client = self.client();
        while Instant::now() < deadline {
            if let Ok(answer) = client.get("/readyz").await
                && answer.status == 200
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                // Its last lines say why.
                self.read_out().await;
                bail!(ended(status, &self.log()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        bail!(not_ready(&self.log()))
    }

    /// A client of its product API.
    pub fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// A client of its admin API.
    pub fn admin(&self) -> Client {
        Client::new(self.admin_port)
    }

    /// Its process id, while it has not been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines that it logged.
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// Every line that it logs from here on, as it comes; ends with the process.
    pub fn follow_log(&self) -> UnboundedReceiver<String> {
        follow(&self.log)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .context("the process was waited for")?;
        Ok(kill_process(pid, signal)?)
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        self.read_out().await;
        Ok(())
    }

    /// Waits for the last lines of a process that is over.
    async fn read_out(&mut self) {
        if let Some(reader) = self.reader.take() {
            // Bounded: whatever the process left behind may hold its end of the pipe open.
            let _ = tokio::time::timeout(READ_OUT_TIMEOUT, reader).await;
        }
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let status = tokio::time::timeout(limit, self.child.wait())
            .await
            .with_context(|| format!("still running after {limit:?}"))??;
        self.read_out().await;
        Ok(status)
    }

    /// SIGTERM, and waits for the clean exit.
    ///
    /// # Errors
    /// As [`Service::signal`] and [`Service::wait`].
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(READY_TIMEOUT).await
    }
}

fn ended(status: ExitStatus, log: &str) -> String {
    format!("the service ended before it was ready ({status}):\n{log}")
}

fn not_ready(log: &str) -> String {
    let seconds = READY_TIMEOUT.as_secs();
    format!("the service was not ready within {seconds} s:\n{log}")
}

/// The ports in the log line that says where the service listens.
fn listening(line: &str) -> Option<(u16, u16)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "listening" {
        return None;
    }
    let port = |field: &str| -> Option<u16> {
        let (_, port) = line[field].as_str()?.rsplit_once(':')?;
        port.parse().ok()
    };
    Some((port("product")?, port("admin")?))
}
