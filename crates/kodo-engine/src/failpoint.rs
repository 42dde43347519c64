//! Fail points: a test can let this process die, panic or stop at exactly a named point.

/// Marks a point where a test may disturb this process. In release builds it does nothing, so no environment variable
/// can end or stop one.
///
/// `KODO_FAILPOINT` names the point and what happens there:
///
/// - `POINT` or `kill:POINT`: SIGKILL. The process has no chance to flush, to roll back or to close a connection.
/// - `panic:POINT`: a panic.
/// - `stop:POINT`: SIGSTOP, the first time that the point is passed; SIGCONT continues from here. In between a test can
///   change the database while it knows where the process is.
///
/// `KODO_FAILPOINT_TRACE` names a file to which each point is appended as it is passed, one a line. So tests need no list
/// of points of their own: `crates/kodo/tests/it/crash_matrix.rs` disturbs each, and fails for a point that is never
/// passed.
///
/// The points:
///
/// - each durable step: `STEP:before`, `STEP:committed` (its effect is committed, its checkpoint is not),
///   `STEP:checkpointed` (later, if the step was quick), from the one function through which every step goes
///   (`run/durable.rs`). A durable sleep has no effect but its checkpoint: `DBOS.sleep:before`, `DBOS.sleep:checkpointed`;
/// - each workflow body: `start:committed` (the execution may begin), `end:before` (the outcome is not recorded), from the
///   guard around every body; the body of a run takes its claim before that, `claim:committed`; one that is run again also
///   has `recover:before` and `recover:committed`;
/// - requests: `intent:…`, `accept:…` (runs), `demo:…` with `before` (nothing is committed) and `answer` (everything
///   is, and the client does not know); `accept:committed` is between the commit and telling the engine;
/// - starting and settling a run: `start:before`, `settle:before`, `settle:committed`;
/// - workers: `register:WORKFLOW`, `launch:before`, `launch:committed`, `takeover:before`, `takeover:committed`.
pub fn failpoint(point: &str) {
    #[cfg(debug_assertions)]
    armed::pass(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test hook of debug builds, in no configuration table"
)]
mod armed {
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Panic,
        Stop,
    }

    static ARMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KODO_FAILPOINT").ok());

    static TRACE: LazyLock<Option<File>> = LazyLock::new(|| {
        let path = std::env::var_os("KODO_FAILPOINT_TRACE")?;
        let opened = File::options().create(true).append(true).open(&path);
        // A test must not mistake a missing trace for an empty one.
        Some(
            opened
                .unwrap_or_else(|error| panic!("KODO_FAILPOINT_TRACE={}: {error}", path.display())),
        )
    });

    /// What `armed` wants at `point`, if anything.
    pub(super) fn action(armed: &str, point: &str) -> Option<Action> {
        let actions = [
            ("kill:", Action::Kill),
            ("panic:", Action::Panic),
            ("stop:", Action::Stop),
        ];
        let (action, named) = actions
            .into_iter()
            .find_map(|(prefix, action)| Some((action, armed.strip_prefix(prefix)?)))
            .unwrap_or((Action::Kill, armed));
        (named == point).then_some(action)
    }

    pub(super) fn pass(point: &str) {
        if let Some(mut trace) = TRACE.as_ref() {
            // One write, so that lines of several threads do not mix.
            let written = trace.write_all(format!("{point}\n").as_bytes());
            assert!(written.is_ok(), "KODO_FAILPOINT_TRACE: {written:?}");
        }
        match ARMED.as_deref().and_then(|armed| action(armed, point)) {
            None => {}
            Some(Action::Panic) => panic!("failpoint {point}"),
            Some(Action::Kill) => {
                // If the signal cannot be sent, abort.
                let _ = kill_process(getpid(), Signal::KILL);
                std::process::abort();
            }
            Some(Action::Stop) => stop(),
        }
    }

    fn stop() {
        static STOPPED: AtomicBool = AtomicBool::new(false);
        if STOPPED.swap(true, Ordering::SeqCst) {
            return;
        }
        let _ = kill_process(getpid(), Signal::STOP);
        // Any thread of the process may take the signal, and on a busy machine that may be late. This thread must not
        // continue before; once the signal is taken, all threads stop.
        while is_pending().unwrap_or(false) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether this process has a SIGSTOP that no thread has taken yet. See proc(5), `ShdPnd`.
    fn is_pending() -> Option<bool> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("ShdPnd:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        Some(mask & (1 << (Signal::STOP.as_raw() - 1)) != 0)
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::{Action, action};

    #[test]
    fn a_point_is_named_with_or_without_what_is_to_happen_there() {
        assert_eq!(action("plan:before", "plan:before"), Some(Action::Kill));
        assert_eq!(
            action("kill:plan:before", "plan:before"),
            Some(Action::Kill)
        );
        assert_eq!(
            action("panic:plan:before", "plan:before"),
            Some(Action::Panic)
        );
        assert_eq!(
            action("stop:plan:before", "plan:before"),
            Some(Action::Stop)
        );
        for other in ["plan", "plan:", "plan:before:", "stop:", "stop:plan", ""] {
            assert_eq!(action(other, "plan:before"), None, "{other}");
        }
    }
}
