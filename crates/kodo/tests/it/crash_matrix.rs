//! Every workflow is disturbed at every point that it passes, in every way that a machine has. Whatever the point,
//! it ends as if nothing had happened: the same rows, each once.
//!
//! The points come from watching (`crash_points.rs`), so that a new one is walked without anybody adding it here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use crate::crash_lane::{Blow, Lane};
use crate::crash_points::{Step, Watched, lanes, lives, steps, watch};
use crate::crash_scenes::{Fixtures, Life};
use crate::crash_seed::{Seed, again, whole};
use crate::own_server::OwnServer;

/// Databases that are walked on at the same time. A walk mostly waits: for sweeps, and for the engine's queue.
const LANES: usize = 4;

/// How often a run is offered to a worker that another one's sweep may take it from.
const OFFERS: usize = 5;

/// How many pairs of points of a life are enough for a quick look.
const FEW: usize = 4;

/// Who goes on with what a killed process leaves.
#[derive(Debug, Clone, Copy)]
enum Heir {
    /// The next process, started once the first is gone.
    Restart,
    /// One that was there all the time.
    Beside,
}

impl Heir {
    /// One step: SIGKILL at the point, and everything is as if it had not been.
    async fn step(self, lane: &mut Lane, life: &Life, point: &str, watched: &Watched) {
        let what = format!("{life}, killed at {point}");
        let (case, before) = match self {
            Self::Restart => {
                let case = lane.prepare(life).await;
                lane.kill9().await;
                let ask = life.is_asked_for();
                let struck = lane.strike(&case, Blow::Kill, point, ask).await;
                assert!(struck.is_some(), "{what}: the point was not passed");
                let before = case.effects(&lane.world).await;
                lane.serve(life.scene).await;
                (case, before)
            }
            Self::Beside => {
                let mut offers = 0;
                loop {
                    let case = lane.prepare(life).await;
                    // The other one's sweep may be the quicker one to start a run that was just stored.
                    if lane.strike(&case, Blow::Kill, point, true).await.is_some() {
                        let before = case.effects(&lane.world).await;
                        break (case, before);
                    }
                    offers += 1;
                    assert!(offers < OFFERS, "{what}: the point was not passed");
                }
            }
        };
        let survivor = lane.world.service.pid();
        let undisturbed = &watched[&Life::new(life.scene)];
        lane.finish(&case, &what, &before, undisturbed).await;
        assert_eq!(lane.world.service.pid(), survivor, "{what}");
    }

    /// Walks on several lanes at once, each taking the next step that is left.
    async fn walk(self, test: &str, lives: &[Life], steps: impl FnOnce(&Watched) -> Vec<Step>) {
        let server = OwnServer::trusting().await;
        let fixtures = Arc::new(Fixtures::new(test));
        let mut lanes = lanes(&server, test, &fixtures, LANES).await;
        let watched = Arc::new(watch(&mut lanes[0], lives).await);
        let steps = VecDeque::from(steps(&watched));
        let all = steps.len();
        let left = Arc::new(Mutex::new(steps));
        let mut walkers = JoinSet::new();
        for mut lane in lanes {
            let (left, watched) = (Arc::clone(&left), Arc::clone(&watched));
            walkers.spawn(async move {
                let mut walked = 0;
                loop {
                    let next = left.lock().unwrap().pop_front();
                    let Some((life, point)) = next else { break };
                    self.step(&mut lane, &life, &point, &watched).await;
                    walked += 1;
                }
                lane.at_rest().await;
                (walked, lane)
            });
        }
        // A lane that goes takes the databases of the whole test with it, so they go together.
        let mut walked = 0;
        let mut done = Vec::new();
        while let Some(lane) = walkers.join_next().await {
            let (steps, lane) =
                lane.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
            walked += steps;
            done.push(lane);
        }
        assert_eq!(walked, all);
        println!("{test}: {walked} points of {} lives, {self:?}", lives.len());
    }
}

#[tokio::test]
async fn killed_at_every_point_and_restarted_everything_ends_as_if_undisturbed() {
    let lives = lives();
    let every = |watched: &Watched| steps(watched, &lives);
    Heir::Restart.walk("crash_kill", &lives, every).await;
}

#[tokio::test]
async fn killed_at_every_point_beside_another_worker_everything_is_taken_over() {
    let lives: Vec<Life> = lives().into_iter().filter(Life::is_asked_for).collect();
    let every = |watched: &Watched| steps(watched, &lives);
    Heir::Beside.walk("crash_heir", &lives, every).await;
}

#[tokio::test]
async fn killed_again_and_again_while_it_recovers_everything_ends_as_if_undisturbed() {
    let lives: Vec<Life> = again().map(Life::new).collect();
    let mut seed = Seed::new();
    let several = |watched: &Watched| {
        let mut steps = Vec::new();
        for life in &lives {
            let mut pairs = seed.pairs(life, &watched[life].points);
            if !whole() {
                seed.keep(&mut pairs, FEW);
            }
            for (life, first, second) in pairs {
                // At the first point once more, and then at the second.
                let twice = [first.as_str(), first.as_str()];
                let settled = !first.starts_with("accept:");
                let killed_at = if settled { &twice[..] } else { &twice[..1] };
                steps.push((Life::after(life.scene, killed_at), second));
            }
        }
        steps
    };
    Heir::Restart.walk("crash_again", &lives, several).await;
}
