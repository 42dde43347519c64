//! Which fail points there are: found by watching, never listed by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::test_databases::TestDatabases;
use serde_json::{Value, json};

use crate::crash_lane::{Lane, Undisturbed, same};
use crate::crash_scenes::{Fixtures, Life, Scene};
use crate::crash_seed::whole;
use crate::golden_folder::goldens;
use crate::own_server::OwnServer;
use crate::support::World;

/// The lives that are watched, and then disturbed at every point that they pass.
pub fn lives() -> Vec<Life> {
    let mut lives: Vec<Life> = Scene::ALL.into_iter().map(Life::new).collect();
    lives.extend([
        // Stored, and nobody told the engine: the sweep starts it.
        Life::after(Scene::Run, &["accept:committed"]),
        // In its middle, from its checkpoints.
        Life::after(Scene::Run, &["tool-001:committed"]),
        Life::after(Scene::FailingRun, &["tool-002:committed"]),
        Life::after(Scene::CrashDemo, &["s1:committed"]),
    ]);
    lives.push(Life {
        beside: true,
        ..Life::after(Scene::Run, &["tool-001:committed"])
    });
    lives
}

/// What is known of the lives of one test.
pub type Watched = BTreeMap<Life, Undisturbed>;

/// Plays each life undisturbed. Whatever happened to it before, it ends like a case of its scene to which nothing
/// ever did.
pub async fn watch(lane: &mut Lane, lives: &[Life]) -> Watched {
    let mut watched = Watched::new();
    for life in lives {
        let undisturbed = lane.undisturbed(life).await;
        let whole = Life::new(life.scene);
        if *life != whole {
            if !watched.contains_key(&whole) {
                let undisturbed = lane.undisturbed(&whole).await;
                watched.insert(whole.clone(), undisturbed);
            }
            same(
                &life.to_string(),
                &watched[&whole].state,
                &undisturbed.state,
            );
        }
        watched.insert(life.clone(), undisturbed);
    }
    watched
}

/// A point of a life.
pub type Step = (Life, String);

/// The points of these lives, every single one for the whole matrix. Else those are left out at which a life does
/// what another one did there before it: a run that fails, up to the step where it does; and what begins anew after
/// a kill, where it is what had begun. The walks that disturb twice choose among those.
pub fn steps(watched: &Watched, lives: &[Life]) -> Vec<Step> {
    let of = |life: &Life| {
        let points = &watched[life].points;
        let begun = &watched[&Life::new(life.scene)].points;
        let differs = |point: &str| life.scene.fails_at() == Some(point);
        let from = points.iter().position(|point| differs(point)).unwrap_or(0);
        let chosen: Vec<Step> = points
            .iter()
            .enumerate()
            .filter(|&(nth, point)| match life.is_asked_for() {
                _ if whole() => true,
                true => nth >= from,
                false => !begun.contains(point),
            })
            .map(|(_, point)| (life.clone(), point.clone()))
            .collect();
        assert!(!chosen.is_empty(), "{life}: nothing to disturb");
        chosen
    };
    lives.iter().flat_map(of).collect()
}

/// Lanes on a server of their own.
pub async fn lanes(
    server: &OwnServer,
    test: &str,
    fixtures: &Arc<Fixtures>,
    count: usize,
) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for number in 0..count {
        let name = format!("{test}_{number}");
        let databases = TestDatabases::none(&server.config, &name);
        let world = World::on(databases, |options| options).await;
        lanes.push(Lane::new(world, &name, fixtures));
    }
    lanes
}

/// The points of a life, in order, as a golden file has them. When a checkpoint is written depends on how long its step took,
/// so it is put behind the step's row.
fn golden(watched: &Watched) -> Value {
    let lives = watched.iter().map(|(life, undisturbed)| {
        let row = |point: &str| point.replace(":checkpointed", ":committed");
        let mut points = undisturbed.points.clone();
        let moved = points.extract_if(.., |point| {
            let row = row(point);
            row != *point && undisturbed.points.contains(&row)
        });
        for checkpoint in moved.collect::<Vec<_>>() {
            let row = row(&checkpoint);
            let at = points.iter().position(|point| *point == row);
            points.insert(at.map_or(0, |at| at + 1), checkpoint);
        }
        (life.to_string(), json!(points))
    });
    Value::Object(lives.collect())
}

#[tokio::test]
async fn the_fail_points_of_every_workflow_are_those_of_the_golden_file() {
    let server = OwnServer::trusting().await;
    let fixtures = Arc::new(Fixtures::new("crash_golden"));
    let mut lanes = lanes(&server, "crash_golden", &fixtures, 1).await;
    let watched = watch(&mut lanes[0], &lives()).await;
    for (life, undisturbed) in &watched {
        every_checkpoint_has_its_points(life, undisturbed);
    }
    every_workflow_has_a_scene(&watched);

    let found = golden(&watched);
    if let Err(error) = goldens().file("fail-points.json", &format!("{found:#}\n")) {
        panic!("{error}");
    }
}

/// Whatever the engine wrote down of a workflow went through the one function that has the fail points: a step that
/// bypasses it, or a point that is gone, shows here.
fn every_checkpoint_has_its_points(life: &Life, undisturbed: &Undisturbed) {
    let checkpoints = undisturbed.state["system"]["checkpoints"].as_array();
    let passed = |point: &str| undisturbed.points.iter().any(|passed| passed == point);
    // What a life did before it was watched, it passed before.
    if life.is_asked_for() && life.scene != Scene::ReplayedRun {
        for checkpoint in checkpoints.into_iter().flatten() {
            let name = checkpoint["function_name"].as_str().expect("a name");
            // What the engine calls its own, a sleep, has no effect but its checkpoint.
            let moments = if name.starts_with("DBOS.") {
                &["before", "checkpointed"][..]
            } else {
                &["before", "committed", "checkpointed"]
            };
            for moment in moments {
                let point = format!("{name}:{moment}");
                assert!(passed(&point), "{life}: there is no fail point {point}");
            }
        }
        let request = undisturbed.points.first().and_then(|p| p.split_once(':'));
        let (request, moment) = request.expect("a request's point");
        assert_eq!(moment, "before", "{life}");
        assert!(passed(&format!("{request}:answer")), "{life}");
    }
    if life.scene.workflow().is_some() && life.scene != Scene::ReplayedRun {
        assert!(checkpoints.is_some_and(|all| all.len() >= 3), "{life}");
        for point in ["start:committed", "end:before"] {
            assert!(passed(point), "{life}: there is no fail point {point}");
        }
    }
}

/// A workflow that the service registers and that nobody plays here would be one that nobody kills.
fn every_workflow_has_a_scene(watched: &Watched) {
    let played: Vec<&str> = Scene::ALL.into_iter().filter_map(Scene::workflow).collect();
    let mut registered: Vec<&str> = watched
        .values()
        .flat_map(|undisturbed| &undisturbed.points)
        .filter_map(|point| point.strip_prefix("register:"))
        .collect();
    registered.sort_unstable();
    registered.dedup();
    assert!(!registered.is_empty());
    for workflow in registered {
        assert!(played.contains(&workflow), "{workflow} has no scene");
    }
}
