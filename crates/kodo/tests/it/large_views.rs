//! Views of runs that leave a lot: bounded, and what they do not show is where they say.

use kodo_contract::{Intent, MAX_VIEW_BYTES, decode, parse_json, sha256_hex};
use kodo_planner::fixture_key;
use serde_json::{Value, json};

use crate::large::{artifacts, get};
use crate::proof::assert_invariants_hold;
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World};

/// Each of a call's files is small enough for its row.
fn files(count: usize, call: usize) -> Value {
    let file = |index: usize| {
        let content = format!("{call} {index} {}", "x".repeat(60_000));
        (format!("file{index:03}"), Value::from(content))
    };
    (0..count).map(file).collect()
}

async fn world(test: &str, scratch: &Scratch, calls: &[Value]) -> World {
    let intent: Intent = decode(&parse_json(DEMO_INTENT.as_bytes()).unwrap()).unwrap();
    let key = fixture_key(&intent, 424_242);
    let calls: Vec<Value> = calls
        .iter()
        .map(|mock| json!({"name": "repo.inspect", "args": {"mock": mock}}))
        .collect();
    let response = json!({"prompt": "p", "toolCalls": calls, "responses": [], "diffs": []});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    scratch.file(&format!("{key}.json"), &fixture.to_string());
    let store = scratch.path().join("store");
    World::with(test, |options| {
        options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", 424_242)
            .env("ARTIFACT_STORE", store.display())
    })
    .await
}

#[tokio::test]
async fn a_view_that_would_pass_8_mib_names_its_largest_outputs_instead() {
    let scratch = Scratch::new("views_large");
    let few = json!({"stdout": "few\n"});
    let calls = [
        json!({"files": files(50, 1)}),
        json!({"stdout": "two\n", "files": files(60, 2)}),
        few,
    ];
    let world = world("views_large", &scratch, &calls).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;

    let answer = get(&world, &format!("/runs/{run}"), &[]).await;
    assert_eq!(answer.status, 200);
    let length = answer.body.len() as u64;
    assert!(
        length <= MAX_VIEW_BYTES && length > MAX_VIEW_BYTES / 2,
        "{length}"
    );
    let view = answer.json();
    assert_eq!(view["status"], "succeeded");
    let steps = view["steps"].as_array().unwrap();
    let is_stored: Vec<bool> = steps
        .iter()
        .map(|it| it["output"]["stored"] == true)
        .collect();
    // The plan came first and fits, but neither of the two calls beside it; the third needs little.
    assert_eq!(is_stored, [false, true, true, false]);
    assert_eq!(steps[3]["output"]["stdout"], "few\n");
    for step in steps.iter().filter(|it| it["output"]["stored"] == true) {
        let shown = &step["output"];
        let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["stored", "sha256", "size"]);
        let path = format!("/artifacts/{}", shown["sha256"].as_str().unwrap());
        let output = get(&world, &path, &[]).await;
        assert_eq!(output.header("content-type"), Some("application/json"));
        assert_eq!(output.body.len() as u64, shown["size"]);
        assert_eq!(shown["sha256"], sha256_hex(&output.body));
        let (recorded,): (String,) = sqlx::query_as(
            "SELECT output::text FROM app.run_steps WHERE run_id = $1 AND step_id = $2",
        )
        .bind(&run)
        .bind(step["stepId"].as_str().unwrap())
        .fetch_one(&world.app)
        .await
        .unwrap();
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        assert_eq!(output.json(), recorded);
    }
    // What is not inline any more is in the store, and no artifact is missing.
    let list = view["artifacts"].as_array().unwrap();
    let of = |kind: &str| list.iter().filter(|it| it["kind"] == kind).count();
    // One of the files is what the mock leaves where it is not told anything else.
    assert_eq!((of("file"), of("output"), of("stdout")), (111, 2, 3));
    let second = list
        .iter()
        .filter(|it| it["uri"].as_str().unwrap().contains("/tool-002/"));
    for file in second.filter(|it| it["kind"] == "file") {
        let path = format!("/artifacts/{}", file["sha256"].as_str().unwrap());
        assert_eq!(get(&world, &path, &[]).await.status, 200, "{path}");
    }
    assert_invariants_hold(&world).await;
    let verified = artifacts(&world, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
