//! A child process that ends when its handle is dropped, and whose output is read all the while.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

/// What OpenCode prints before the port on which it listens.
const LISTENS: &str = "listening on http://127.0.0.1:";
/// The longest line that is read as one, in bytes.
const LINE: u64 = 16 * 1024;
/// The pause between two checks whether a child that has closed its output has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// A child process. Dropping this kills it.
#[derive(Debug)]
pub(super) struct ChildProcess(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    /// Its thread has not started it yet.
    NotStarted,
    Running(Child),
    /// The handle was dropped.
    Dropped,
}

/// What happens to a child process.
#[derive(Debug)]
pub(super) struct Events {
    /// The port on which it listens; closes if it ends before it listens.
    pub(super) port: oneshot::Receiver<u16>,
    /// The reason why it ended.
    pub(super) end: watch::Receiver<Option<String>>,
}

/// Starts a command whose standard output is piped.
///
/// # Errors
/// The thread that reads the output cannot be started. A command that cannot be run is an `end`.
pub(super) fn spawn(mut command: Command) -> io::Result<(ChildProcess, Events)> {
    let state = Arc::new(Mutex::new(State::NotStarted));
    let (tell_port, port) = oneshot::channel();
    let (tell_end, end) = watch::channel(None);
    let held = Arc::clone(&state);
    // A thread of its own, because the program dies with the thread that started it.
    let thread = thread::Builder::new().name("kodo-opencode".to_owned());
    thread.spawn(move || {
        let how = match start(&mut command, &held) {
            Ok(stdout) => follow(stdout, &held, tell_port),
            Err(error) => error.to_string(),
        };
        let _ = tell_end.send(Some(how));
    })?;
    Ok((ChildProcess(state), Events { port, end }))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(command: &mut Command, held: &Mutex<State>) -> io::Result<Option<ChildStdout>> {
    // Under the lock, so that a handle that is dropped meanwhile finds the child, or it is not started.
    let mut held = lock(held);
    if matches!(*held, State::Dropped) {
        return Err(io::Error::other("it was not waited for"));
    }
    let mut child = command.spawn()?;
    let stdout = child.stdout.take();
    *held = State::Running(child);
    Ok(stdout)
}

/// Reads what the child prints, so that it never blocks on its output, and waits until it ends.
fn follow(
    stdout: Option<ChildStdout>,
    held: &Mutex<State>,
    tell_port: oneshot::Sender<u16>,
) -> String {
    let mut tell_port = Some(tell_port);
    let mut last = String::new();
    if let Some(stdout) = stdout {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while (&mut reader)
            .take(LINE)
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            last = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let port = last.split_once(LISTENS).map(|(_, port)| port.trim());
            if let Some(port) = port.and_then(|port| port.parse().ok())
                && let Some(tell_port) = tell_port.take()
            {
                let _ = tell_port.send(port);
            }
        }
    }
    drop(tell_port);
    loop {
        // Polled, because waiting would hold the lock that killing it needs.
        if let Some(end) = ended(&mut lock(held)) {
            return match end {
                Ok(status) => format!("it ended with {status}; the last that it printed: {last}"),
                Err(()) => "it was ended".to_owned(),
            };
        }
        thread::sleep(PAUSE);
    }
}

fn ended(state: &mut State) -> Option<Result<ExitStatus, ()>> {
    match state {
        State::Running(child) => match child.try_wait() {
            Ok(status) => status.map(Ok),
            Err(_) => Some(Err(())),
        },
        State::NotStarted | State::Dropped => Some(Err(())),
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.0), State::Dropped);
        if let State::Running(mut child) = state {
            let _ = child.kill();
            // Its home folder is removed next, so it must have ended.
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::Instant;

    use super::*;

    /// Waits without a child of its own, which would for a moment have the same arguments.
    const FOR_EVER: &str = "kill -STOP $$";

    fn shell(script: &str) -> (ChildProcess, Events) {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        spawn(command).unwrap()
    }

    /// Whether a process has this in its arguments.
    fn alive(marker: &str) -> bool {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(marker)
        })
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn marker(test: &str) -> String {
        format!("kodo-kept-{test}-{}", std::process::id())
    }

    #[tokio::test]
    async fn a_start_that_nobody_waits_for_any_more_leaves_no_process() {
        let marker = marker("given-up");
        let (child, events) = shell(&format!(": {marker}; {FOR_EVER}"));
        until("it runs", || alive(&marker)).await;
        drop((child, events));
        assert!(!alive(&marker));
    }

    #[tokio::test]
    async fn one_that_prints_no_text_or_closes_its_output_can_be_ended() {
        let marker = marker("silent");
        let (child, mut events) = shell(&format!(
            r": {marker}; printf '\377\n'; echo listening on http://127.0.0.1:7; exec >&-; {FOR_EVER}"
        ));
        assert_eq!((&mut events.port).await, Ok(7));
        let ending = tokio::task::spawn_blocking(move || drop(child));
        tokio::time::timeout(Duration::from_secs(10), ending)
            .await
            .unwrap()
            .unwrap();
        assert!(!alive(&marker));
        let end = events.end.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(end.as_deref(), Some("it was ended"));
    }

    #[tokio::test]
    async fn an_end_says_how_and_what_was_printed_last() {
        let (_child, mut events) = shell("echo first; echo no license; exit 3");
        assert!(events.port.await.is_err());
        let end = events.end.wait_for(Option::is_some).await.unwrap().clone();
        let end = end.unwrap();
        assert!(
            end.contains("exit status: 3") && end.ends_with("no license"),
            "{end}"
        );
    }
}
