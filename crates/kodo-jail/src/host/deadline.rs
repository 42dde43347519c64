//! By when a helper has to have ended, whatever its job does: later the more it is given and hands back.

use std::time::{Duration, Instant};

use kodo_contract::NodeKind;
use kodo_sandbox::JobSpec;

/// How long making the jail and killing may take beyond the job's own time, and how long a helper that collects may say nothing.
const GRACE: Duration = Duration::from_secs(30);
/// The least that a helper restores or collects in a second, in bytes. Both go through memory at hundreds of MiB a second; a
/// machine on which it is less than this one is one on which a helper hangs.
const SLOWEST: u64 = 1 << 20;
/// What a file, folder or link takes beside its content, in the same measure.
const ENTRY: u64 = 4 << 10;

/// When the helper of a job is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    by: Instant,
    /// It is not put off beyond this, however long the helper goes on sending.
    latest: Instant,
}

impl Deadline {
    /// For a job that is sent now.
    pub(crate) fn of(spec: &JobSpec, now: Instant) -> Self {
        let given = spec.given().into_iter().map(|(_, node)| match node.kind {
            NodeKind::File { size, .. } => ENTRY.saturating_add(size),
            _ => ENTRY,
        });
        let given = given.fold(0, u64::saturating_add);
        let limits = &spec.limits;
        let left = limits
            .inodes
            .saturating_mul(ENTRY)
            .saturating_add(limits.disk_bytes);
        let by = now + limits.wall + GRACE + at_slowest(given);
        Self {
            by,
            latest: by + at_slowest(left),
        }
    }

    /// How long it is until then.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.by.saturating_duration_since(now)
    }

    /// The helper has sent a part of what the job left: the program has ended, and the helper does not hang.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.by = self.by.max((now + GRACE).min(self.latest));
    }
}

fn at_slowest(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobSpec {
        let mut job = JobSpec::new(["true"]);
        job.limits.wall = Duration::from_secs(10);
        job.limits.disk_bytes = 100 << 20;
        job.limits.inodes = 256;
        job
    }

    #[test]
    fn a_job_that_is_given_more_has_longer() {
        let now = Instant::now();
        let none = Deadline::of(&job(), now).left(now);
        assert_eq!(none, Duration::from_secs(40));
        let mut given = job();
        for number in 0..3 {
            given = given.file(&format!("f{number}"), vec![0; 2 << 20]);
        }
        assert_eq!(
            Deadline::of(&given, now).left(now),
            none + Duration::from_secs(6)
        );
    }

    #[test]
    fn a_helper_that_goes_on_sending_is_waited_for_and_not_for_ever() {
        let now = Instant::now();
        let mut deadline = Deadline::of(&job(), now);
        // Early progress takes nothing away.
        deadline.put_off(now);
        assert_eq!(deadline.left(now), Duration::from_secs(40));
        let later = now + Duration::from_secs(39);
        deadline.put_off(later);
        assert_eq!(deadline.left(later), GRACE);
        // Then it is silent.
        assert_eq!(deadline.left(later + GRACE), Duration::ZERO);
        for second in 40..1000 {
            deadline.put_off(now + Duration::from_secs(second));
        }
        assert_eq!(deadline.left(now), Duration::from_secs(40 + 101));
    }
}
