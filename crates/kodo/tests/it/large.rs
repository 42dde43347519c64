//! Runs whose artifacts are large enough for the store, and how they are got at again.

use hyper::Method;
use kodo_contract::{Intent, decode, parse_json};
use kodo_dev::harness::{Answer, ServiceOptions};
use kodo_planner::fixture_key;
use serde_json::{Value, json};

use crate::program::{Ended, kodo};
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World};

/// What the only call of a large run prints.
pub fn printed() -> String {
    (0..20_000).map(|line| format!("line {line}\n")).collect()
}

/// The one file that it leaves.
pub fn left() -> String {
    "0123456789abcdef".repeat(8192)
}

/// A world whose planner plans one call that prints and leaves a lot, and that stores in a folder of its own.
pub async fn large(test: &str, scratch: &Scratch, more: &[(&str, String)]) -> World {
    let intent: Intent = decode(&parse_json(DEMO_INTENT.as_bytes()).unwrap()).unwrap();
    let key = fixture_key(&intent, 424_242);
    let mock = json!({"stdout": printed(), "stderr": "few\n", "files": {"large.txt": left(), "small.txt": "tiny\n"}});
    let call = json!({"name": "repo.inspect", "args": {"mock": mock}});
    let response =
        json!({"prompt": "p", "toolCalls": [call], "responses": [], "diffs": ["d".repeat(70_000)]});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    scratch.file(&format!("{key}.json"), &fixture.to_string());
    let store = scratch.path().join("store");
    World::with(test, |options: ServiceOptions| {
        let mut options = options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", 424_242)
            .env("ARTIFACT_STORE", store.display());
        for (name, value) in more {
            options = options.env(name, value);
        }
        options
    })
    .await
}

/// `kodo artifacts …` as the world's service is configured.
pub async fn artifacts(world: &World, arguments: &[&str]) -> Ended {
    let environment: Vec<(&str, &str)> = world
        .options
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !name.starts_with("KODO_FAILPOINT"))
        .collect();
    kodo(&[&["artifacts"], arguments].concat(), &environment).await
}

/// The run of the world's only intent.
pub async fn run(world: &World) -> Value {
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await
}

pub async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = world.client.send(Method::GET, path, headers, "").await;
    answer.unwrap()
}
