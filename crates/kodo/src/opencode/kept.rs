//! A child that lives for as long as somebody holds it, and is listened to all the while.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

/// What it prints before the address on which it listens.
const LISTENS: &str = "listening on http://127.0.0.1:";
/// The longest line that is kept whole, in bytes; a longer one comes in pieces.
const LINE: u64 = 16 * 1024;
/// How often is looked whether a child that prints no more has ended.
const LOOK: Duration = Duration::from_millis(50);

/// The child. Dropping this ends it, whether it has said anything by then or not.
#[derive(Debug)]
pub(super) struct Kept(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    /// Its thread has not started it yet.
    Awaited,
    Runs(Child),
    /// Nobody wants it any more.
    Unwanted,
}

/// What a child says.
#[derive(Debug)]
pub(super) struct Said {
    /// On which port it listens, as soon as it does; closed where it ends before that.
    pub(super) port: oneshot::Receiver<u16>,
    /// How it ended.
    pub(super) end: watch::Receiver<Option<String>>,
}

/// Starts a command whose standard output is piped.
///
/// # Errors
/// Where there is no thread for it. A command that cannot be run is an end.
pub(super) fn keep(mut command: Command) -> io::Result<(Kept, Said)> {
    let state = Arc::new(Mutex::new(State::Awaited));
    let (tell_port, port) = oneshot::channel();
    let (tell_end, end) = watch::channel(None);
    let held = Arc::clone(&state);
    // A thread of its own: the program dies with the thread that started it.
    let thread = thread::Builder::new().name("kodo-opencode".to_owned());
    thread.spawn(move || {
        let how = match start(&mut command, &held) {
            Ok(stdout) => follow(stdout, &held, tell_port),
            Err(error) => error.to_string(),
        };
        let _ = tell_end.send(Some(how));
    })?;
    Ok((Kept(state), Said { port, end }))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(command: &mut Command, held: &Mutex<State>) -> io::Result<Option<ChildStdout>> {
    // Under the lock: whoever gives it up meanwhile finds it, or it is not started.
    let mut held = lock(held);
    if matches!(*held, State::Unwanted) {
        return Err(io::Error::other("it was not waited for"));
    }
    let mut child = command.spawn()?;
    let stdout = child.stdout.take();
    *held = State::Runs(child);
    Ok(stdout)
}

/// Reads what it prints, so that it can always print, and waits for its end.
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
        // Looked at rather than waited for: whoever wants to end it needs the lock.
        if let Some(end) = ended(&mut lock(held)) {
            return match end {
                Ok(status) => format!("it ended with {status}; the last that it printed: {last}"),
                Err(()) => "it was ended".to_owned(),
            };
        }
        thread::sleep(LOOK);
    }
}

fn ended(state: &mut State) -> Option<Result<ExitStatus, ()>> {
    match state {
        State::Runs(child) => match child.try_wait() {
            Ok(status) => status.map(Ok),
            Err(_) => Some(Err(())),
        },
        State::Awaited | State::Unwanted => Some(Err(())),
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.0), State::Unwanted);
        if let State::Runs(mut child) = state {
            let _ = child.kill();
            // Reaped here, since its home goes next, and it must not write to it any more.
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::Instant;

    use super::*;

    /// Waits without a child, which for a moment has its parent's arguments.
    const FOR_EVER: &str = "kill -STOP $$";

    fn shell(script: &str) -> (Kept, Said) {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        keep(command).unwrap()
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
        let (kept, said) = shell(&format!(": {marker}; {FOR_EVER}"));
        until("it runs", || alive(&marker)).await;
        drop((kept, said));
        assert!(!alive(&marker));
    }

    #[tokio::test]
    async fn one_that_prints_no_text_or_closes_its_output_can_be_ended() {
        let marker = marker("silent");
        let (kept, mut said) = shell(&format!(
            r": {marker}; printf '\377\n'; echo listening on http://127.0.0.1:7; exec >&-; {FOR_EVER}"
        ));
        assert_eq!((&mut said.port).await, Ok(7));
        let ending = tokio::task::spawn_blocking(move || drop(kept));
        tokio::time::timeout(Duration::from_secs(10), ending)
            .await
            .unwrap()
            .unwrap();
        assert!(!alive(&marker));
        let end = said.end.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(end.as_deref(), Some("it was ended"));
    }

    #[tokio::test]
    async fn an_end_says_how_and_what_was_printed_last() {
        let (_kept, mut said) = shell("echo first; echo no license; exit 3");
        assert!(said.port.await.is_err());
        let end = said.end.wait_for(Option::is_some).await.unwrap().clone();
        let end = end.unwrap();
        assert!(
            end.contains("exit status: 3") && end.ends_with("no license"),
            "{end}"
        );
    }
}
