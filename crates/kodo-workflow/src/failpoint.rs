//! A test hook: dies at a named moment, exactly there and not "after about that long".

/// Ends this process with SIGKILL where `KODO_FAILPOINT` names this point, panics where it is `panic:` and this
/// point, and else does nothing.
///
/// Compiled into debug builds only, so no environment variable can end a release build. A process killed here
/// has had no chance to flush, to roll back or to say goodbye, which is what `kill -9` means.
///
/// The points of a run, in order: `accept:before`, `accept:committed`, `start:committed`, then for each step
/// (`plan`, `tool-001`, …) `STEP:before`, `STEP:committed`, `STEP:checkpointed`, then `end:before`,
/// `settle:before`, `settle:committed`. Those of the crash demo: `s1:…` and `s2:…`, likewise.
pub fn failpoint(point: &str) {
    #[cfg(debug_assertions)]
    {
        static ARMED: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("KODO_FAILPOINT").ok());
        let Some(armed) = ARMED.as_deref() else {
            return;
        };
        if armed.strip_prefix("panic:") == Some(point) {
            panic!("failpoint {point}");
        }
        if armed == point {
            // A signal that cannot be sent to oneself leaves nothing to do but to abort.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}
