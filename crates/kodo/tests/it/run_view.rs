//! `GET /runs/:id`: the view of a run that succeeded.

use kodo_contract::{canonical_json, sha256_hex};
use serde_json::{Value, json};

use crate::api::{committed_fixtures, got, refusal, shown};
use crate::support::{DEMO_INTENT, OTHER_INTENT, World};

fn keys(value: &Value) -> Vec<&str> {
    let members = value.as_object().expect("an object");
    members.keys().map(String::as_str).collect()
}

/// Whether a text is a time as the contract has it: ISO 8601, UTC, milliseconds.
fn is_time(value: &Value) -> bool {
    let shape: String = value
        .as_str()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z"
}

/// Checks what holds for every view, in whatever state the run is.
pub fn check(view: &Value) {
    assert_eq!(
        keys(view),
        ["runId", "status", "steps", "artifacts", "traceId"]
    );
    for step in view["steps"].as_array().unwrap() {
        assert_eq!(
            keys(step),
            ["stepId", "phase", "output", "startedAt", "finishedAt"]
        );
        assert!(
            is_time(&step["startedAt"]) && is_time(&step["finishedAt"]),
            "{step}"
        );
    }
    for artifact in view["artifacts"].as_array().unwrap() {
        assert_eq!(keys(artifact), ["kind", "uri", "inline", "sha256"]);
        let hash = sha256_hex(canonical_json(&artifact["inline"]).as_bytes());
        assert_eq!(artifact["sha256"], json!(hash), "{artifact}");
    }
}

/// Step ids and phases, then kinds and places of the artifacts, without the run's id.
pub fn outline(view: &Value) -> String {
    let run = view["runId"].as_str().unwrap();
    let mut lines = vec![format!("{}", view["status"].as_str().unwrap())];
    for step in view["steps"].as_array().unwrap() {
        lines.push(format!(
            "{} {}",
            step["stepId"].as_str().unwrap(),
            step["phase"].as_str().unwrap()
        ));
    }
    for artifact in view["artifacts"].as_array().unwrap() {
        let uri = artifact["uri"].as_str().unwrap();
        let place = uri.strip_prefix(&format!("artifact://{run}/"));
        lines.push(format!(
            "{} {}",
            artifact["kind"].as_str().unwrap(),
            place.unwrap()
        ));
    }
    lines.join("\n")
}

#[tokio::test]
async fn a_run_that_succeeded_shows_its_steps_and_what_they_produced() {
    let world = World::with("run_view", committed_fixtures).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    check(&view);
    assert_eq!(view["runId"], json!(run));
    assert_eq!(view["traceId"], Value::Null);
    insta::assert_snapshot!(outline(&view), @r"
    succeeded
    plan planning
    tool-001 executing
    plan plan/0
    diff plan/1
    stdout tool-001/0
    file tool-001/1
    ");
    insta::assert_snapshot!(view["steps"][1]["output"], @r#"{"files":[{"name":"result.json","sha256":"d0a22386a71b14953e959f8b7bba4d5230220885c15f1665e9152cadf04825ef","content":"{\"job\":\"10f4c53021a88fe99bc7e57897bf781dd2c4a306400ffbe0600c1617e7d6a31b\",\"seed\":424242,\"tool\":\"repo.inspect\"}"}],"stderr":"","stdout":"repo.inspect done by the mock, job 10f4c53021a8\n","exitCode":0,"provider":"mock"}"#);

    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    check(&view);
    insta::assert_snapshot!(outline(&view), @r"
    succeeded
    plan planning
    tool-001 executing
    tool-002 executing
    tool-003 executing
    plan plan/0
    diff plan/1
    stdout tool-001/0
    file tool-001/1
    stdout tool-002/0
    file tool-002/1
    stdout tool-003/0
    file tool-003/1
    ");
    // Two reads of one run are one text, object keys included.
    let path = format!("/runs/{run}");
    let (one, other) = (got(&world, &path).await, got(&world, &path).await);
    assert_eq!(one.body, other.body);
    assert_eq!(one.text(), one.json().to_string(), "compact");
    assert_eq!(one.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn steps_come_as_they_started_then_by_id_and_artifacts_by_index_as_a_number() {
    let world = World::new("run_view_order").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = "run_00000000000070008000000000000009";
    // A run that is over, so that nothing here sets it going.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        r#"INSERT INTO app.runs (id, intent_id, workflow_id, status) VALUES ('{run}', '{intent}', '{run}', 'succeeded');
        INSERT INTO app.run_steps (run_id, step_id, phase, output, started_at, finished_at) VALUES
            ('{run}', 'c', 'executing', '3', '2026-01-02 03:04:05.678+00', NULL),
            ('{run}', 'b', 'executing', '{{"bb": 1, "a": [2, {{}}]}}', '2026-01-02 04:04:05.6+01', '2026-01-02 03:04:06+00'),
            ('{run}', 'a', 'planning', 'null', '2026-01-02 03:04:05+00', '2026-01-02 03:04:05.999999+00');
        INSERT INTO app.artifacts (run_id, step_id, idx, kind, uri, inline, sha256)
            SELECT '{run}', step, idx, 'k', step || idx, NULL, repeat('0', 64)
            FROM unnest(ARRAY['b', 'a']) step, unnest(ARRAY[10, 9, 0]) idx"#
    )))
    .execute(&world.app)
    .await
    .unwrap();
    let text = got(&world, &format!("/runs/{run}")).await.text();
    let zeros = "0".repeat(64);
    let text = text.replace(&format!(r#""inline":null,"sha256":"{zeros}""#), "…");
    insta::assert_snapshot!(text, @r#"{"runId":"run_00000000000070008000000000000009","status":"succeeded","steps":[{"stepId":"a","phase":"planning","output":null,"startedAt":"2026-01-02T03:04:05.000Z","finishedAt":"2026-01-02T03:04:05.999Z"},{"stepId":"b","phase":"executing","output":{"a":[2,{}],"bb":1},"startedAt":"2026-01-02T03:04:05.600Z","finishedAt":"2026-01-02T03:04:06.000Z"},{"stepId":"c","phase":"executing","output":3,"startedAt":"2026-01-02T03:04:05.678Z","finishedAt":null}],"artifacts":[{"kind":"k","uri":"a0",…},{"kind":"k","uri":"a9",…},{"kind":"k","uri":"a10",…},{"kind":"k","uri":"b0",…},{"kind":"k","uri":"b9",…},{"kind":"k","uri":"b10",…}],"traceId":null}"#);

    // A row that no version of ours writes must not leave as if it were a view, nor say what it was.
    sqlx::query("UPDATE app.run_steps SET step_id = 'not an id' WHERE step_id = 'c'")
        .execute(&world.app)
        .await
        .unwrap();
    let refused = refusal(&world, "GET", &format!("/runs/{run}"), &[], "").await;
    assert_eq!(refused, r#"500 {"error":"internal error"}"#);
    assert_eq!(shown(&got(&world, "/healthz").await), r#"200 {"ok":true}"#);
}
