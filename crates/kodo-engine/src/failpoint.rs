//! A test hook: this process dies, panics or stops at a named moment, exactly there and not "after about that long".

/// Says that this process comes to a point where a test may disturb it. In release builds it is nothing at all, so
/// no environment variable can end or stop one.
///
/// `KODO_FAILPOINT` names the point, with what is to happen there:
///
/// - `POINT` or `kill:POINT`: SIGKILL. A process killed here has had no chance to flush, to roll back or to say
///   goodbye, which is what `kill -9` means.
/// - `panic:POINT`: a panic.
/// - `stop:POINT`: SIGSTOP, the first time that the point is passed; SIGCONT goes on from here. In between, a test
///   can do to the database what it likes and knows what the process was at.
///
/// `KODO_FAILPOINT_TRACE` names a file to which each point is appended as it is passed, one a line. So tests find out
/// which points there are, and need no list of their own: `crates/kodo/tests/it/crash_matrix.rs` disturbs every
/// one. A name that nobody passes disturbs nothing, and the matrix fails for it.
///
/// Where they come from:
///
/// - each durable step: `STEP:before`, `STEP:committed` (its effect is committed, its checkpoint is not),
///   `STEP:checkpointed`, from the one function through which every step goes (`run/durable.rs`). A durable sleep has no
///   effect but its checkpoint: `DBOS.sleep:before`, `DBOS.sleep:checkpointed`;
/// - each workflow body: `start:committed` (the engine's row is there), `end:before` (the outcome is not), from the
///   guard around every body; a body that is run again also has `recover:before` and `recover:committed`;
/// - requests: `intent:…`, `accept:…` (runs), `demo:…` with `before` (nothing is committed) and `answer` (everything
///   is, and the client does not know); `accept:committed` is between the commit and telling the engine;
/// - the way from a run's row to its workflow and back: `start:before`, `settle:before`, `settle:committed`;
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

    /// What is to happen.
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
        // A test that asked for a trace must not mistake a missing one for an empty one.
        Some(
            opened
                .unwrap_or_else(|error| panic!("KODO_FAILPOINT_TRACE={}: {error}", path.display())),
        )
    });

    /// What `armed` wants to happen at `point`, if anything.
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
                // A signal that cannot be sent to oneself leaves nothing to do but to abort.
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
        // The signal is the process's, and another thread may be the one to take it, which a busy machine does not let
        // run for a while. This one must not go on until it is taken: from then on none does.
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
