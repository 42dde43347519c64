//! Points at which something is disturbed twice: all pairs of them, or one pair for each point from a printed seed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::crash_scenes::{Life, Scene};

/// What `mise run test:crash:matrix` sets to `all`.
const ALL: &str = "KODO_CRASH_MATRIX";

/// Repeats what a seed chose.
const SEED: &str = "KODO_CRASH_SEED";

/// The scenes that are disturbed again while they recover: each workflow, and both ways in which a run ends.
pub fn again() -> impl Iterator<Item = Scene> {
    [Scene::Run, Scene::FailingRun, Scene::CrashDemo].into_iter()
}

/// Whether everything is to be walked, or what is left out of `mise run check` for the time that it takes.
#[expect(clippy::disallowed_methods, reason = "what a task sets for this test")]
pub fn whole() -> bool {
    std::env::var(ALL).is_ok_and(|all| all == "all")
}

/// Chooses among pairs.
pub struct Seed {
    random: fastrand::Rng,
}

impl Seed {
    /// A new one, printed where a test that fails shows it, or the given one.
    #[expect(
        clippy::disallowed_methods,
        reason = "another seed each time, printed, unless one is given"
    )]
    pub fn new() -> Self {
        let given = std::env::var(SEED).ok();
        let seed = given.map_or_else(
            || {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                now.expect("a clock").subsec_nanos().into()
            },
            |given| given.parse().expect(SEED),
        );
        println!("{SEED}={seed}");
        let random = fastrand::Rng::with_seed(seed);
        Self { random }
    }

    /// Pairs of points of a life that begins: where its process is killed first, and where what goes on with it
    /// is disturbed in turn, which is the same point or a later one.
    ///
    /// Without a first point before the request is stored: that would leave nothing to go on with. And without one
    /// before the answer, because how far the run is by then is anybody's guess.
    pub fn pairs(&mut self, life: &Life, points: &[String]) -> Vec<(Life, String, String)> {
        let begins = |point: &&String| {
            !point.ends_with(":answer") && *point != "accept:before" && *point != "demo:before"
        };
        let points: Vec<&String> = points.iter().filter(begins).collect();
        let mut pairs = Vec::new();
        for (nth, first) in points.iter().enumerate() {
            // A request's points are passed by nobody again; after the last of all nothing is left to do.
            let again: Vec<&&String> = points[nth..]
                .iter()
                .filter(|point| !point.starts_with("accept:"))
                .collect();
            if *first == points[points.len() - 1] && first.starts_with("settle:") {
                continue;
            }
            let chosen = if whole() {
                again
            } else {
                again
                    .get(self.random.usize(..again.len()))
                    .into_iter()
                    .copied()
                    .collect()
            };
            pairs.extend(
                chosen
                    .into_iter()
                    .map(|second| (life.clone(), (*first).clone(), (*second).clone())),
            );
        }
        pairs
    }

    /// Keeps some of them.
    pub fn keep<T>(&mut self, several: &mut Vec<T>, some: usize) {
        self.random.shuffle(several);
        several.truncate(some);
    }
}
