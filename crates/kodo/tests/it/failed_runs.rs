//! A run that fails says why: in its view, as an artifact, and in column `app.runs.error`.

use kodo_contract::{Intent, decode, parse_json};
use kodo_planner::fixture_key;
use serde_json::{Value, json};

use crate::run_view::{check, outline};
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World};

/// A fixture whose plan makes these tool calls.
pub fn fixture(key: &str, tool_calls: &Value) -> String {
    let response = json!({"prompt": "p", "toolCalls": tool_calls, "responses": [], "diffs": []});
    json!({"key": key, "schemaVersion": 1, "response": response}).to_string()
}

/// Runs the demo intent and returns the view.
async fn run(world: &World) -> Value {
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    check(&view);
    view
}

/// The reason of a run that failed, which must be the same in all places.
async fn reason(world: &World, view: &Value) -> Value {
    assert_eq!(view["status"], "failed");
    let artifacts = view["artifacts"].as_array().unwrap();
    let errors: Vec<&Value> = artifacts
        .iter()
        .filter(|artifact| artifact["kind"] == "error")
        .collect();
    assert_eq!(errors.len(), 1, "{artifacts:#?}");
    let reason = errors[0]["inline"].clone();
    let mut keys: Vec<&String> = reason.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["code", "message", "stepId"]);
    let column: String = sqlx::query_scalar("SELECT error::text FROM app.runs WHERE id = $1")
        .bind(view["runId"].as_str())
        .fetch_one(&world.app)
        .await
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&column).unwrap(), reason);
    let status: String =
        sqlx::query_scalar("SELECT status FROM dbos.workflow_status WHERE workflow_uuid = $1")
            .bind(view["runId"].as_str())
            .fetch_one(&world.system)
            .await
            .unwrap();
    assert_eq!(status, "ERROR");
    reason
}

async fn with_fixtures(test: &str, scratch: &Scratch) -> World {
    World::with(test, |options| {
        options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", 424_242)
    })
    .await
}

#[tokio::test]
async fn a_run_whose_planner_has_no_usable_fixture_fails_and_says_what_to_do() {
    let scratch = Scratch::new("failed_plan");
    let world = with_fixtures("failed_plan", &scratch).await;
    let intent: Intent = decode(&parse_json(DEMO_INTENT.as_bytes()).unwrap()).unwrap();
    let key = fixture_key(&intent, 424_242);

    let view = run(&world).await;
    insta::assert_snapshot!(outline(&view), @r"
    failed
    error plan/0
    ");
    let missing = reason(&world, &view).await;
    assert_eq!(missing["code"], "planner_fixture_missing");
    assert_eq!(missing["stepId"], "plan");
    let message = missing["message"].as_str().unwrap();
    let path = scratch.path().join(format!("{key}.json"));
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains("to record one"), "{message}");

    scratch.file("default.json", "{}");
    let invalid = run(&world).await;
    let invalid = reason(&world, &invalid).await;
    assert_eq!(invalid["code"], "planner_fixture_invalid");

    // The intent's own fixture counts at once, and before the default one.
    scratch.file(&format!("{key}.json"), &fixture(&key, &json!([])));
    let view = run(&world).await;
    insta::assert_snapshot!(outline(&view), @r"
    succeeded
    plan planning
    plan plan/0
    ");
}

#[tokio::test]
async fn a_run_whose_tool_fails_keeps_what_it_printed_and_says_which_tool_it_was() {
    let scratch = Scratch::new("failed_tool");
    let world = with_fixtures("failed_tool", &scratch).await;
    let call = |name: &str, mock: Value| json!({"name": name, "args": {"mock": mock}});

    let calls = json!([
        call("first", json!({})),
        call(
            "second",
            json!({"exitCode": 3, "stdout": "tried\n", "stderr": "no such file\n", "files": {"log": "x"}})
        ),
        call("third", json!({})),
    ]);
    scratch.file("default.json", &fixture("default", &calls));
    let view = run(&world).await;
    insta::assert_snapshot!(outline(&view), @r"
    failed
    plan planning
    tool-001 executing
    tool-002 executing
    plan plan/0
    stdout tool-001/0
    file tool-001/1
    stdout tool-002/0
    stderr tool-002/1
    file tool-002/2
    error tool-002/3
    ");
    let failed = reason(&world, &view).await;
    insta::assert_snapshot!(failed["code"], @r#""tool_failed""#);
    insta::assert_snapshot!(failed["message"], @r#""tool call 2 (second) ended with exit code 3; what it printed is among the run's artifacts""#);
    insta::assert_snapshot!(failed["stepId"], @r#""tool-002""#);
    let inline: Vec<&Value> = view["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|artifact| &artifact["inline"])
        .collect();
    assert!(inline.contains(&&json!("tried\n")) && inline.contains(&&json!("no such file\n")));
    assert_eq!(view["steps"][2]["output"]["exitCode"], 3);

    // A sandbox that gives no result: at once, or after the retries that could have helped.
    for retryable in [false, true] {
        let error = json!({"error": {"code": "sandbox_timeout", "retryable": retryable}});
        let calls = json!([call("only", error)]);
        scratch.file("default.json", &fixture("default", &calls));
        let view = run(&world).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(outline(&view), @r"
            failed
            plan planning
            plan plan/0
            error tool-001/0
            ");
        }
        let failed = reason(&world, &view).await;
        assert_eq!(failed["code"], "sandbox_timeout");
        assert_eq!(failed["stepId"], "tool-001");
        assert_eq!(
            failed["message"],
            r#"tool call "only" asked the mock to fail with sandbox_timeout"#
        );
    }

    let calls = json!([call("odd", json!({"no such": "script"}))]);
    scratch.file("default.json", &fixture("default", &calls));
    let view = run(&world).await;
    let failed = reason(&world, &view).await;
    assert_eq!(failed["code"], "sandbox_invalid_call");
}
