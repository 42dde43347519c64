//! Postgres is killed while a service stands still at a point, and comes back; the service goes on from there. It is
//! not restarted, and everything ends as if nothing had happened.
//!
//! The services of a wave stand still on databases of their own, each at another point, when their one server is
//! killed. So every point has its kill, and a walk of a hundred points starts Postgres a dozen times.

use std::collections::BTreeMap;
use std::sync::Arc;

use kodo_dev::harness::Answer;
use rustix::process::Signal;
use tokio::task::{JoinHandle, JoinSet};

use crate::crash_lane::{Blow, Lane};
use crate::crash_points::{Step, Watched, lanes, lives, steps, watch};
use crate::crash_scenes::{Case, Fixtures, Life};
use crate::crash_seed::{Seed, again};
use crate::own_server::OwnServer;

/// Services that stand still when Postgres is killed. Each has up to 38 connections; the server allows 200.
const WAVE: usize = 6;

/// A service that stands still at its point.
struct Still {
    lane: Lane,
    case: Case,
    what: String,
    before: BTreeMap<String, String>,
    asked: Option<JoinHandle<anyhow::Result<Answer>>>,
}

impl Still {
    /// Plays the life up to the point, and no further.
    async fn stand(mut lane: Lane, life: Life, point: String) -> Self {
        let what = format!("{life}, Postgres killed at {point}");
        let case = lane.prepare(&life).await;
        lane.kill9().await;
        let ask = life.is_asked_for();
        let struck = lane.strike(&case, Blow::Stop, &point, ask).await;
        let struck = struck.unwrap_or_else(|| panic!("{what}: the point was not passed"));
        lane.world.service = struck.service;
        lane.world.client = lane.world.service.client();
        let before = case.effects(&lane.world).await;
        Self {
            lane,
            case,
            what,
            before,
            asked: struck.asked,
        }
    }

    /// Lets it go on.
    async fn go_on(mut self, watched: &Watched) -> Lane {
        let what = &self.what;
        let pid = self.lane.world.service.pid();
        self.lane
            .world
            .service
            .signal(Signal::CONT)
            .expect("SIGCONT");
        if let Some(asked) = self.asked.take() {
            // Whatever became of the request, its client is told that it is done, or to come again.
            let answer = asked.await.expect("the client");
            let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
            let expected = [self.case.yes(), 503];
            assert!(
                expected.contains(&answer.status),
                "{what}: {} {}",
                answer.status,
                answer.text()
            );
        }
        let undisturbed = &watched[&Life::new(self.case.life.scene)];
        self.lane
            .finish(&self.case, what, &self.before, undisturbed)
            .await;
        assert_eq!(self.lane.world.service.pid(), pid, "{what}");
        self.lane
    }
}

/// Goes all these steps, a wave of them at a time.
async fn walk(test: &str, lives: &[Life], steps: impl FnOnce(&Watched) -> Vec<Step>) -> usize {
    let server = OwnServer::trusting().await;
    let fixtures = Arc::new(Fixtures::new(test));
    let mut lanes = lanes(&server, test, &fixtures, WAVE).await;
    let watched = Arc::new(watch(&mut lanes[0], lives).await);
    let steps = steps(&watched);
    let mut waves = 0;
    for wave in steps.chunks(WAVE) {
        let mut standing = JoinSet::new();
        for (life, point) in wave.iter().cloned() {
            let lane = lanes.pop().expect("a lane for each step of a wave");
            standing.spawn(Still::stand(lane, life, point));
        }
        let standing = all(standing).await;
        server.kill();
        server.up();
        let mut going = JoinSet::new();
        for still in standing {
            let watched = Arc::clone(&watched);
            going.spawn(async move { still.go_on(&watched).await });
        }
        lanes.extend(all(going).await);
        waves += 1;
    }
    for lane in &lanes {
        lane.at_rest().await;
    }
    println!(
        "{test}: {} points, Postgres killed {waves} times",
        steps.len()
    );
    steps.len()
}

/// What all tasks return; fails with the first that failed.
async fn all<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut done = Vec::new();
    while let Some(task) = tasks.join_next().await {
        done.push(task.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic())));
    }
    done
}

#[tokio::test]
async fn postgres_killed_at_every_point_leaves_everything_as_if_undisturbed() {
    let lives: Vec<Life> = lives().into_iter().filter(|life| !life.beside).collect();
    let walked = walk("crash_pg", &lives, |watched| steps(watched, &lives));
    assert!(walked.await > 0);
}

#[tokio::test]
async fn postgres_killed_while_a_killed_service_recovers_leaves_everything_as_if_undisturbed() {
    let mut seed = Seed::new();
    let lives: Vec<Life> = again().map(Life::new).collect();
    let walked = walk("crash_pg_again", &lives, |watched| {
        let pairs = lives
            .iter()
            .flat_map(|life| seed.pairs(life, &watched[life].points));
        pairs
            .map(|(life, first, second)| (Life::after(life.scene, &[&first]), second))
            .collect()
    });
    assert!(walked.await > 0);
}
