//! Rounds of the crash demo: a service of its own, `kill -9` between two durable steps, a restart, and the rows.

use tokio::process::Command;

use super::{Attempt, Ended, Soak, into_log};

/// What the demo prints when the kill landed where it is meant to: after the first effect, before the second.
const KILLED_BETWEEN: &str = "kill -9 with marks s1=1 s2=0";

/// What it prints when everything is there once.
const DONE: &str = "app.marks s1=1 s2=1\nDBOS workflow status: SUCCESS\n";

pub(super) struct Crashdemo;

/// The durable sleep between the effects: shorter than the demo's own, long enough for the kill to land in it, and
/// another one with each seed, so that the kill meets the sleep at another moment.
fn sleep_millis(seed: u64) -> u64 {
    800 + seed % 400
}

impl Soak for Crashdemo {
    const NAME: &'static str = "crashdemo";
    const TASK: &'static str = "wf:crashdemo:soak";

    async fn round(&self, attempt: &mut Attempt<'_>) -> anyhow::Result<Ended> {
        let mut command = Command::new(attempt.root.join("scripts/kodo"));
        command
            .args(["demo", "crash"])
            .current_dir(attempt.root)
            .env("WF_SLEEP_MS", sleep_millis(attempt.seed).to_string())
            .env("TEST_SEED", attempt.seed.to_string())
            // Free ports: a fixed one may still be held by what a round left to the system.
            .env_remove("PORT")
            .env_remove("ADMIN_PORT");
        into_log(&mut command, &attempt.log)?;
        let Some(status) = attempt.stop.or_end_of(&mut command).await? else {
            return Ok(Ended::Stopped);
        };
        if !status.success() {
            return Ok(Ended::Failed(status.to_string()));
        }
        Ok(judge(&std::fs::read_to_string(&attempt.log)?))
    }
}

/// Exit code 0 is not taken on trust: a demo that killed too late would show nothing.
fn judge(log: &str) -> Ended {
    if !log.contains(KILLED_BETWEEN) {
        return Ended::Failed(format!(
            "the kill did not land between the effects: no `{KILLED_BETWEEN}`"
        ));
    }
    if !log.contains(DONE) {
        return Ended::Failed("it did not show both effects once and SUCCESS".into());
    }
    Ended::Passed("killed between the effects, each there once, SUCCESS".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "crashdemo: kill -9 with marks s1=1 s2=0, workflow PENDING\n\
                        crashdemo: app.marks s1=1 s2=1\nDBOS workflow status: SUCCESS\n";

    #[test]
    fn a_round_counts_only_if_the_kill_landed_between_the_effects() {
        assert!(matches!(judge(GOOD), Ended::Passed(_)));
        for bad in [
            GOOD.replace("s1=1 s2=0", "s1=1 s2=1"),
            GOOD.replace("SUCCESS", "ERROR"),
            GOOD.replace("app.marks s1=1", "app.marks s1=2"),
            String::new(),
        ] {
            assert!(matches!(judge(&bad), Ended::Failed(_)), "{bad}");
        }
    }

    #[test]
    fn the_sleep_follows_the_seed_and_leaves_room_for_the_kill() {
        assert_eq!(
            (sleep_millis(0), sleep_millis(399), sleep_millis(400)),
            (800, 1199, 800)
        );
    }
}
