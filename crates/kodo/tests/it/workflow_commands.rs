//! `kodo workflow …`: the system database, for people and for programs.

use serde_json::{Value, json};

use crate::program::{Ended, kodo};
use crate::support::{DEMO_INTENT, World};

/// Runs `kodo` on the world's databases.
pub async fn kodo_on(world: &World, arguments: &[&str]) -> Ended {
    let environment = world.databases().environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([("DB_CONNECT_TIMEOUT_MS", "30000")])
        .collect();
    kodo(arguments, &environment).await
}

async fn json_of(world: &World, arguments: &[&str]) -> Value {
    let ended = kodo_on(world, &[arguments, &["-o", "json"]].concat()).await;
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    serde_json::from_str(&ended.stdout).expect("one JSON document")
}

#[tokio::test]
async fn workflows_are_listed_newest_first_and_shown_one_by_one() {
    let world = World::apart("cli_workflows", |options| options.env("WF_SLEEP_MS", 0)).await;
    let empty = kodo_on(&world, &["workflow", "list"]).await;
    assert_eq!(
        (empty.code, empty.stdout.as_str()),
        (Some(0), "no workflows yet\n")
    );
    assert_eq!(json_of(&world, &["workflow", "list"]).await, json!([]));

    let intent = world.intent(DEMO_INTENT).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let run = world.run(&intent).await;
        world.ended(&run).await;
        ids.insert(0, run);
    }
    let list = kodo_on(&world, &["workflow", "list"]).await;
    assert_eq!(list.code, Some(0), "{list:?}");
    let rows: Vec<Vec<&str>> = list
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "WORKFLOW", "STATUS", "NAME", "EXECUTOR", "ATTEMPTS", "CREATED", "UPDATED"
        ]
    );
    let shown: Vec<&[&str]> = rows[1..].iter().map(|row| &row[..5]).collect();
    let expected: Vec<[&str; 5]> = ids
        .iter()
        .map(|id| [id.as_str(), "SUCCESS", "intent_run", "kodo-0", "1"])
        .collect();
    assert_eq!(shown, expected);

    let newest = json_of(&world, &["workflow", "list", "-n", "2"]).await;
    let newest: Vec<&str> = newest
        .as_array()
        .expect("a list")
        .iter()
        .map(id_of)
        .collect();
    assert_eq!(newest, [&ids[0], &ids[1]]);
}

fn id_of(workflow: &Value) -> &str {
    workflow["workflowId"].as_str().expect("an id")
}

#[tokio::test]
async fn one_workflow_and_its_steps_are_shown_as_table_and_as_json() {
    let world = World::new("cli_workflow").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;

    let one = json_of(&world, &["workflow", "get", &run]).await;
    assert_eq!(one["workflowId"], run.as_str());
    assert_eq!(one["status"], "SUCCESS");
    assert_eq!(one["input"], json!({ "runId": run }));
    assert_eq!(one["output"], json!({ "toolCalls": 3 }));
    assert_eq!(one["error"], Value::Null);
    let table = kodo_on(&world, &["workflow", "get", &run]).await.stdout;
    let names: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        names,
        [
            "workflow",
            "status",
            "name",
            "executor",
            "version",
            "attempts",
            "queue",
            "created",
            "updated",
            "completed",
            "input",
            "output",
            "error"
        ]
    );

    let steps = json_of(&world, &["workflow", "steps", &run]).await;
    let names: Vec<&Value> = steps
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| &step["name"])
        .collect();
    assert_eq!(names, ["plan", "tool-001", "tool-002", "tool-003"]);
    let table = kodo_on(&world, &["workflow", "steps", &run]).await.stdout;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    assert_eq!(rows[0], ["STEP", "NAME", "OUTCOME"]);
    assert_eq!(rows[4], ["3", "tool-003", "ok"]);
}

#[tokio::test]
async fn an_unknown_id_has_an_exit_code_of_its_own_and_a_clear_line() {
    let world = World::new("cli_unknown").await;
    for verb in ["get", "steps"] {
        let ended = kodo_on(&world, &["workflow", verb, "run_unknown"]).await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert_eq!(ended.stdout, "");
        assert_eq!(
            ended.stderr,
            "kodo: no workflow has the id \"run_unknown\"; `kodo workflow list` shows those there are\n"
        );
    }
}

#[tokio::test]
async fn a_system_database_that_is_not_there_yet_is_said_to_be_so() {
    let world = World::apart("cli_uninit", |options| options).await;
    let databases = world.databases();
    // The product database has no schema `dbos`; the other one is no database at all.
    for (system, said) in [
        (
            databases.app.database.as_str(),
            "has no tables of the workflow engine: no service was started on it: start the service once, and they are made\n",
        ),
        (
            "kodo_it_no_such_database",
            "SYS_DB_NAME names it; a start makes it, if the role may create databases\n",
        ),
    ] {
        for verb in [&["list"][..], &["get", "x"], &["steps", "x"]] {
            let arguments = [&["workflow"], verb, &["--sys-db-name", system]].concat();
            let ended = kodo_on(&world, &arguments).await;
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (Some(1), ""),
                "{ended:?}"
            );
            assert!(
                ended.stderr.contains(system) && ended.stderr.ends_with(said),
                "{ended:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error_of_one_line() {
    let ended = kodo(&["workflow", "list"], &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        ended.stderr.starts_with(
            "kodo: the system database \"dbos_sys\" at 127.0.0.1:1: Connection refused"
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_workflow_can_be_asked_for_by_the_word_of_its_task() {
    let ended = kodo(&["workflow", "status", "--help"], &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("kodo workflow get"), "{ended:?}");
}
