//! The calls of one plan: what waits for what, what each finds, what it may know.

use std::fs;

use kodo_contract::{Intent, decode};
use kodo_planner::fixture_key;
use serde_json::{Value, json};

use crate::scratch::Scratch;
use crate::support::World;

pub const SEED: u64 = 424_242;
const SECRET: &str = "correct-horse-battery-staple";

/// A live service that plans these calls for this intent.
async fn world(scratch: &Scratch, test: &str, intent: &Value, calls: &Value) -> World {
    world_with(scratch, test, intent, calls, &[]).await
}

pub async fn world_with(
    scratch: &Scratch,
    test: &str,
    intent: &Value,
    calls: &Value,
    environment: &[(&str, &str)],
) -> World {
    let parsed: Intent = decode(intent).unwrap();
    let key = fixture_key(&parsed, SEED);
    let response = json!({"prompt": "p", "toolCalls": calls, "responses": [], "diffs": []});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    scratch.file(&format!("{key}.json"), &fixture.to_string());
    World::with(test, |options| {
        let options = options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", SEED)
            .env("SBX_MODE", "live");
        environment
            .iter()
            .fold(options, |options, (name, value)| options.env(name, value))
    })
    .await
}

pub fn goal(inputs: Value, constraints: Value) -> Value {
    json!({"goal": "Do it", "inputs": inputs, "constraints": constraints})
}

pub async fn run(world: &World, intent: &Value) -> Value {
    let intent = world.intent(&intent.to_string()).await;
    let run = world.run(&intent).await;
    world.ended(&run).await
}

/// A call that runs a line of shell.
pub fn call(id: &str, shell: &str, deps: &[&str]) -> Value {
    json!({"id": id, "name": "exec", "args": {"shell": shell}, "deps": deps})
}

pub fn step<'a>(view: &'a Value, id: &str) -> &'a Value {
    let steps = view["steps"].as_array().unwrap();
    let found = steps.iter().find(|step| step["stepId"] == id);
    found.unwrap_or_else(|| panic!("{id} in {view:#}"))
}

pub fn stdout<'a>(view: &'a Value, id: &str) -> &'a str {
    step(view, id)["output"]["stdout"].as_str().unwrap()
}

pub fn error(view: &Value) -> &Value {
    assert_eq!(view["status"], "failed", "{view:#}");
    &view["artifacts"].as_array().unwrap().last().unwrap()["inline"]
}

#[tokio::test]
async fn calls_that_need_nothing_of_each_other_run_at_the_same_time() {
    let scratch = Scratch::new("calls_parallel");
    let intent = goal(json!({}), json!({}));
    let calls = json!([
        call("a", "sleep 1; echo a > a", &[]),
        call("b", "sleep 1; echo b > b", &[]),
        call("c", "cat a b", &["a", "b"]),
    ]);
    let world = world(&scratch, "calls_parallel", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-003"), "a\nb\n");
    // Times of one width: their order is that of their texts.
    let at = |id: &str, what: &str| step(&view, id)[what].as_str().unwrap().to_owned();
    assert!(at("tool-001", "startedAt") < at("tool-002", "finishedAt"));
    assert!(at("tool-002", "startedAt") < at("tool-001", "finishedAt"));
    assert!(at("tool-003", "startedAt") >= at("tool-001", "finishedAt"));
    assert!(at("tool-003", "startedAt") >= at("tool-002", "finishedAt"));
}

#[tokio::test]
async fn a_call_finds_the_intents_files_as_the_calls_that_it_depends_on_left_them() {
    let scratch = Scratch::new("calls_files");
    let files = json!({
        "src/app.txt": "v1\n",
        "run.sh": {"content": "IyEvYmluL3NoCmNhdCBzcmMvYXBwLnR4dAo=", "encoding": "base64", "executable": true},
    });
    let intent = goal(json!({"files": files}), json!({}));
    let calls = json!([
        call("change", "./run.sh; echo v2 > src/app.txt; echo new > new.txt", &[]),
        call("beside", "./run.sh; test ! -e new.txt", &[]),
        call("after", "./run.sh; cat new.txt", &["change"]),
        {"name": "exec", "args": {"shell": "./run.sh", "files": {"src/app.txt": "own\n"}}},
    ]);
    let world = world(&scratch, "calls_files", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-001"), "v1\n");
    assert_eq!(stdout(&view, "tool-002"), "v1\n");
    assert_eq!(stdout(&view, "tool-003"), "v2\nnew\n");
    assert_eq!(stdout(&view, "tool-004"), "own\n");
}

#[tokio::test]
async fn a_file_that_changed_its_kind_is_found_as_it_is_now() {
    let scratch = Scratch::new("calls_kinds");
    let intent = goal(
        json!({"files": {"run.sh": "#!/bin/sh\necho ran\n", "notes": "old", "kept/a": "a"}}),
        json!({}),
    );
    let calls = json!([
        {"name": "exec", "args": {"shell": "chmod +x run.sh; rm notes; mkdir notes; echo new > notes/x"}},
        {"name": "exec", "args": {"shell": "./run.sh; cat notes/x kept/a"}},
        {"name": "exec", "args": {"argv": ["cat", "kept"], "files": {"kept": "own\n"}}},
    ]);
    let world = world(&scratch, "calls_kinds", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-002"), "ran\nnew\na");
    assert_eq!(stdout(&view, "tool-003"), "own\n");
}

#[tokio::test]
async fn a_call_that_asks_for_more_than_there_is_for_plans_is_refused() {
    let scratch = Scratch::new("calls_most");
    let intent = goal(json!({}), json!({}));
    let limits = json!({"memoryBytes": 96 << 20});
    let calls = json!([{"name": "exec", "args": {"argv": ["true"], "limits": limits}}]);
    let environment = [("SBX_MAX_MEMORY_MIB", "64")];
    let world = world_with(&scratch, "calls_most", &intent, &calls, &environment).await;
    let view = run(&world, &intent).await;
    assert_eq!(error(&view)["code"], "tool_args_invalid", "{view:#}");
    let message = error(&view)["message"].as_str().unwrap();
    assert!(
        message.contains("limits.memoryBytes of a plan may be at most 67108864"),
        "{message}"
    );
}

#[tokio::test]
async fn killed_between_parallel_calls_a_run_goes_on_with_what_is_recorded() {
    let scratch = Scratch::new("calls_killed");
    let intent = goal(json!({"files": {"in.txt": "given\n"}}), json!({}));
    let calls = json!([
        call("slow", "sleep 2; cat in.txt; echo slow > slow.txt", &[]),
        call("quick", "cat in.txt; echo quick > quick.txt", &[]),
        call("last", "cat slow.txt quick.txt", &["slow", "quick"]),
    ]);
    let killed_there = [("KODO_FAILPOINT", "tool-002:checkpointed")];
    let mut world = world_with(&scratch, "calls_killed", &intent, &calls, &killed_there).await;
    let id = world.intent(&intent.to_string()).await;
    let run = world.run(&id).await;
    let limit = std::time::Duration::from_secs(30);
    world.service.wait(limit).await.expect("it is killed");
    let steps = "SELECT string_agg(step_id, ' ' ORDER BY step_id) FROM app.run_steps";
    let recorded: String = sqlx::query_scalar(steps)
        .fetch_one(&world.app)
        .await
        .unwrap();
    assert_eq!(recorded, "plan tool-002", "the slow one was under way");
    let before = crate::evidence::step_versions(&world, &run).await;

    let again = world.options.clone().env("KODO_FAILPOINT", "");
    world.restart(&again).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(stdout(&view, "tool-003"), "slow\nquick\n");
    let after = crate::evidence::step_versions(&world, &run).await;
    assert_eq!(before["tool-002"], after["tool-002"], "not written again");
    let places: Vec<(i32, String)> = sqlx::query_as(
        "SELECT function_id, function_name FROM dbos.operation_outputs WHERE workflow_uuid = $1 ORDER BY 1",
    )
    .bind(&run)
    .fetch_all(&world.system)
    .await
    .unwrap();
    let names: Vec<&str> = places.iter().map(|it| it.1.as_str()).collect();
    assert_eq!(names, ["plan", "tool-001", "tool-002", "tool-003"]);
}

#[tokio::test]
async fn a_call_that_fails_lets_its_siblings_finish_and_nothing_else_begin() {
    let scratch = Scratch::new("calls_fail");
    let intent = goal(json!({}), json!({}));
    let calls = json!([
        call("good", "sleep 1; echo done", &[]),
        call("bad", "echo broken >&2; exit 4", &[]),
        call("after", "true", &["good"]),
    ]);
    let world = world(&scratch, "calls_fail", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(error(&view)["code"], "tool_failed", "{view:#}");
    assert_eq!(error(&view)["stepId"], "tool-002");
    assert_eq!(stdout(&view, "tool-001"), "done\n");
    assert_eq!(view["steps"].as_array().unwrap().len(), 3, "{view:#}");
    let printed = view["artifacts"].as_array().unwrap();
    assert!(
        printed
            .iter()
            .any(|it| it["kind"] == "stderr" && it["inline"] == "broken\n"),
        "{view:#}"
    );
}

#[tokio::test]
async fn a_plan_whose_order_makes_no_sense_is_refused_and_nothing_of_it_is_run() {
    let scratch = Scratch::new("calls_order");
    let intent = goal(json!({}), json!({}));
    let calls = json!([call("a", "true", &["b"]), call("b", "true", &[])]);
    let world = world(&scratch, "calls_order", &intent, &calls).await;
    let view = run(&world, &intent).await;
    assert_eq!(error(&view)["code"], "plan_invalid", "{view:#}");
    let message = error(&view)["message"].as_str().unwrap();
    assert!(
        message.contains("data/toolCalls/0/deps/0 must be the id of an earlier call"),
        "{message}"
    );
    assert!(view["steps"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn files_of_an_intent_that_are_none_end_its_run_before_anything_is_planned() {
    let scratch = Scratch::new("calls_no_files");
    let intent = goal(json!({"files": {"../up": "x"}}), json!({}));
    let world = world(&scratch, "calls_no_files", &intent, &json!([])).await;
    let view = run(&world, &intent).await;
    assert_eq!(error(&view)["code"], "input_files_invalid", "{view:#}");
    assert_eq!(error(&view)["stepId"], "plan");
}

fn secrets(scratch: &Scratch) -> String {
    let folder = scratch.path().join("secrets");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("API_TOKEN"), format!("{SECRET}\n")).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_secret_reaches_the_job_by_name_and_is_in_no_row_and_no_log_line() {
    let scratch = Scratch::new("calls_secret");
    let folder = secrets(&scratch);
    let intent = goal(json!({}), json!({"secrets": ["API_TOKEN"]}));
    let shell = r#"echo "$API_TOKEN" | sha256sum; echo "$API_TOKEN"; cat key >&2; cp key copy"#;
    let wanted = json!(["API_TOKEN", {"name": "API_TOKEN", "file": "key"}]);
    let calls = json!([
        {"name": "exec", "args": {"shell": shell, "secrets": wanted}},
        {"name": "exec", "args": {"shell": "test -z \"$API_TOKEN\" && cat copy && test ! -e key"}},
    ]);
    let environment = [("SBX_SECRETS_DIR", folder.as_str())];
    let world = world_with(&scratch, "calls_secret", &intent, &calls, &environment).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    // The job had it: this is its hash, with the newline that echo adds.
    let hash = kodo_contract::sha256_hex(format!("{SECRET}\n").as_bytes());
    assert_eq!(
        stdout(&view, "tool-001"),
        format!("{hash}  -\n[secret API_TOKEN]\n")
    );
    assert_eq!(
        step(&view, "tool-001")["output"]["stderr"],
        "[secret API_TOKEN]"
    );
    assert_eq!(stdout(&view, "tool-002"), "[secret API_TOKEN]");
    for pool in [&world.app, &world.system] {
        let found = rows_with(pool, SECRET).await;
        assert!(found.is_empty(), "{found:?}");
    }
    assert!(!world.service.log().contains(SECRET));
}

/// The tables that have a text somewhere in a row.
async fn rows_with(pool: &sqlx::PgPool, text: &str) -> Vec<String> {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT schemaname::text, tablename::text FROM pg_tables WHERE schemaname IN ('app', 'dbos')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(!tables.is_empty());
    let mut found = Vec::new();
    for (schema, table) in tables {
        let query = format!(
            "SELECT count(*) FROM \"{schema}\".\"{table}\" AS it WHERE strpos(it::text, $1) > 0"
        );
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(text)
            .fetch_one(pool)
            .await
            .unwrap();
        if count > 0 {
            found.push(format!("{schema}.{table}"));
        }
    }
    found
}

#[tokio::test]
async fn a_secret_that_the_intent_does_not_allow_is_refused_and_the_call_never_run() {
    let scratch = Scratch::new("calls_no_secret");
    let folder = secrets(&scratch);
    let intent = goal(json!({}), json!({}));
    let calls = json!([{"name": "exec", "args": {"argv": ["env"], "secrets": ["API_TOKEN"]}}]);
    let environment = [("SBX_SECRETS_DIR", folder.as_str())];
    let world = world_with(&scratch, "calls_no_secret", &intent, &calls, &environment).await;
    let view = run(&world, &intent).await;
    assert_eq!(error(&view)["code"], "secret_refused", "{view:#}");
    let message = error(&view)["message"].as_str().unwrap();
    assert!(
        message.contains("API_TOKEN") && message.contains("constraints.secrets"),
        "{message}"
    );
    assert_eq!(view["steps"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn no_more_jobs_are_under_way_than_are_allowed() {
    let scratch = Scratch::new("calls_bound");
    let intent = goal(json!({}), json!({}));
    let calls: Vec<Value> = (0..3)
        .map(|n| call(&format!("c{n}"), "sleep 0.3", &[]))
        .collect();
    let environment = [("MAX_CONCURRENT_TOOL_CALLS", "1")];
    let world = world_with(
        &scratch,
        "calls_bound",
        &intent,
        &json!(calls),
        &environment,
    )
    .await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let overlaps = "SELECT count(*) FROM app.run_steps a JOIN app.run_steps b USING (run_id)
                    WHERE a.step_id < b.step_id AND a.started_at < b.finished_at AND b.started_at < a.finished_at";
    assert_eq!(world.count(overlaps).await, 0);
}
