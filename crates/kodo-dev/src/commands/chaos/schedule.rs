//! What is broken and when: drawn from the seed before anything starts, so that a seed names one schedule.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// A way to break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    /// SIGKILL of a service.
    Kill,
    /// SIGTERM of a service, which is to end by itself with exit code 0.
    Terminate,
    /// SIGTERM of a service, and SIGKILL while it drains.
    TerminateAndKill,
    /// What `pg_ctl stop -m immediate` does: SIGQUIT of the postmaster, no checkpoint.
    DatabaseImmediate,
    /// SIGKILL of the postmaster; its children find out by themselves.
    DatabaseKill,
    /// What `pg_ctl stop -m fast` does: SIGINT of the postmaster, every session cut, a checkpoint.
    DatabaseFast,
    /// Every session of the services is cut; the server stays.
    Disconnect,
}

impl Fault {
    /// Every kind, in the order of reports.
    pub(super) const ALL: [Self; 7] = [
        Self::Kill,
        Self::Terminate,
        Self::TerminateAndKill,
        Self::DatabaseImmediate,
        Self::DatabaseKill,
        Self::DatabaseFast,
        Self::Disconnect,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "service killed (SIGKILL)",
            Self::Terminate => "service asked to end (SIGTERM)",
            Self::TerminateAndKill => "service killed while it drained",
            Self::DatabaseImmediate => "database stopped at once (SIGQUIT)",
            Self::DatabaseKill => "database killed (SIGKILL)",
            Self::DatabaseFast => "database restarted (SIGINT)",
            Self::Disconnect => "every session cut",
        })
    }
}

/// One fault of a lane: how long all is left alone before it, and how long what it stopped stays down.
///
/// Most wait for the recovery from the last one, so that work gets done on a slow machine too; the others hit it on
/// its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blow {
    pub(super) settled: bool,
    pub(super) calm: Duration,
    pub(super) fault: Fault,
    pub(super) down: Duration,
}

/// What happens to each service and to the database. The lanes run beside each other, so that a fault meets the
/// recovery from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    /// One lane a service.
    pub(super) workers: Vec<Vec<Blow>>,
    /// The database's lane.
    pub(super) database: Vec<Blow>,
}

/// How often each kind is drawn among those of its lane, and the bounds of calm and downtime, in milliseconds.
struct Lane {
    kinds: &'static [(Fault, usize)],
    calm: std::ops::Range<u64>,
    down: std::ops::Range<u64>,
}

const WORKER: Lane = Lane {
    kinds: &[
        (Fault::Kill, 6),
        (Fault::Terminate, 3),
        (Fault::TerminateAndKill, 1),
    ],
    calm: 50..5000,
    down: 0..1500,
};

/// Rarer than the services' faults: each costs every run that is under way a pause.
const DATABASE: Lane = Lane {
    kinds: &[
        (Fault::DatabaseImmediate, 3),
        (Fault::DatabaseKill, 3),
        (Fault::DatabaseFast, 1),
        (Fault::Disconnect, 2),
    ],
    calm: 2500..10_000,
    down: 0..2500,
};

impl Schedule {
    /// The schedule of a seed, long enough for `length`.
    pub(super) fn of(seed: u64, workers: usize, length: Duration) -> Self {
        let mut rng = Rng::with_seed(seed);
        // A generator a lane: a longer soak begins like a shorter one.
        let mut lane = |lane: &Lane| lane.draw(&mut rng.fork(), length);
        Self {
            workers: (0..workers).map(|_| lane(&WORKER)).collect(),
            database: lane(&DATABASE),
        }
    }
}

impl Lane {
    fn draw(&self, rng: &mut Rng, length: Duration) -> Vec<Blow> {
        let mut blows = Vec::new();
        let mut at = Duration::ZERO;
        loop {
            let blow = Blow {
                settled: rng.u32(..4) > 0,
                calm: Duration::from_millis(rng.u64(self.calm.clone())),
                fault: self.kind(rng),
                down: Duration::from_millis(rng.u64(self.down.clone())),
            };
            at += blow.calm;
            if at >= length {
                return blows;
            }
            at += blow.down;
            blows.push(blow);
        }
    }

    fn kind(&self, rng: &mut Rng) -> Fault {
        let kinds = self.kinds.iter();
        let tickets = kinds.flat_map(|(fault, weight)| std::iter::repeat_n(*fault, *weight));
        let tickets: Vec<Fault> = tickets.collect();
        tickets[rng.usize(..tickets.len())]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_names_one_schedule_and_another_seed_another() {
        assert_eq!(Schedule::of(7, 2, MINUTE), Schedule::of(7, 2, MINUTE));
        assert_ne!(Schedule::of(7, 2, MINUTE), Schedule::of(8, 2, MINUTE));
    }

    #[test]
    fn a_longer_soak_begins_like_a_shorter_one() {
        let (short, long) = (Schedule::of(7, 2, MINUTE), Schedule::of(7, 2, 3 * MINUTE));
        assert_eq!(long.database[..short.database.len()], short.database);
        assert_eq!(long.workers[1][..short.workers[1].len()], short.workers[1]);
        assert!(long.database.len() > short.database.len());
    }

    #[test]
    fn the_lanes_of_the_services_differ() {
        let schedule = Schedule::of(7, 2, MINUTE);
        assert_ne!(schedule.workers[0], schedule.workers[1]);
    }

    #[test]
    fn a_long_soak_has_every_kind_of_fault_and_a_minute_hits_both_sides() {
        let hour = Schedule::of(7, 2, 60 * MINUTE);
        let drawn = hour.workers.iter().flatten().chain(&hour.database);
        let kinds: BTreeSet<Fault> = drawn.map(|blow| blow.fault).collect();
        assert_eq!(kinds, Fault::ALL.into_iter().collect());
        for seed in 0..100 {
            let minute = Schedule::of(seed, 2, MINUTE);
            assert!(minute.database.len() >= 3, "seed {seed}");
            assert!(
                minute.workers.iter().all(|lane| lane.len() >= 5),
                "seed {seed}"
            );
        }
    }
}
