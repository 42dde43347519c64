//! Walkthroughs C and D of the course: an intent over HTTP becomes a run that succeeds, and the rows say the same.

use serde_json::{Value, json};
use sqlx::Row;

use crate::api::{committed_fixtures, got, is_id, keyed};
use crate::exchange::{DEMO_RUN, start_demo};
use crate::support::{DEMO_INTENT, World, text, until};

#[tokio::test]
async fn an_intent_becomes_a_run_that_succeeded_and_the_rows_say_so_too() {
    let world = World::apart("e2e_flow", committed_fixtures).await;
    assert_eq!(got(&world, "/healthz").await.text(), r#"{"ok":true}"#);

    // C: intent, run, and asking until it is over, as a client does that sees nothing but the API.
    let (stored, accepted) = start_demo(&world.client).await;
    let intent = text(&stored, "intentId");
    assert!(is_id(&intent, "it_"), "{intent}");
    let run = text(&accepted, "runId");
    assert!(is_id(&run, "run_"), "{run}");
    assert_eq!(text(&accepted, "workflowId"), run);
    let path = format!("/runs/{run}");
    until("the run to succeed", || async {
        let answer = world.client.get(&path).await.unwrap();
        if answer.status == 503 {
            return false;
        }
        let status = text(&answer, "status");
        assert!(
            ["queued", "running", "succeeded"].contains(&status.as_str()),
            "{status}"
        );
        status == "succeeded"
    })
    .await;
    let view = got(&world, &path).await.json();
    let keys: Vec<&String> = view.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["runId", "status", "steps", "artifacts", "traceId"]);
    assert_eq!(view["runId"], json!(run));
    assert_eq!(view["steps"][0]["phase"], "planning");
    assert_eq!(view["traceId"], "po-demo");

    // D: the course's queries, verbatim.
    let intents =
        sqlx::query("SELECT id,goal,created_at FROM app.intents ORDER BY created_at DESC LIMIT 3;")
            .fetch_all(&world.app)
            .await
            .unwrap();
    let intents: Vec<[String; 2]> = intents
        .iter()
        .map(|row| [row.get("id"), row.get("goal")])
        .collect();
    assert_eq!(intents, [[intent.as_str(), "demo"]]);
    let runs: Vec<(String, String, String, String, String)> = sqlx::query_as(
        "SELECT id,intent_id,workflow_id,status,trace_id FROM app.runs ORDER BY created_at DESC LIMIT 3;",
    )
    .fetch_all(&world.app)
    .await
    .unwrap();
    let expected = (
        run.clone(),
        intent,
        run.clone(),
        "succeeded".into(),
        "po-demo".into(),
    );
    assert_eq!(runs, [expected]);
    let steps: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT run_id,step_id,phase FROM app.run_steps ORDER BY started_at DESC NULLS LAST LIMIT 5;",
    )
    .fetch_all(&world.app)
    .await
    .unwrap();
    let in_view: Vec<(String, String, String)> = view["steps"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|step| (run.clone(), string(&step["stepId"]), string(&step["phase"])))
        .collect();
    assert_eq!(steps, in_view, "the view shows the rows");
    let workflow: (String, String) = sqlx::query_as(
        "SELECT workflow_uuid,status FROM dbos.workflow_status ORDER BY updated_at DESC LIMIT 10;",
    )
    .fetch_one(&world.system)
    .await
    .unwrap();
    assert_eq!(workflow, (run, "SUCCESS".into()));
}

#[tokio::test]
async fn a_client_that_sends_a_request_again_gets_the_same_run() {
    let world = World::apart("e2e_again", committed_fixtures).await;
    let first = keyed(&world.client, "/intents", "intent", DEMO_INTENT).await;
    let again = keyed(&world.client, "/intents", "intent", DEMO_INTENT).await;
    assert_eq!((first.status, &first.body), (201, &again.body));
    let path = format!("/intents/{}/run", text(&first, "intentId"));
    let first = keyed(&world.client, &path, "run", DEMO_RUN).await;
    let again = keyed(&world.client, &path, "run", DEMO_RUN).await;
    assert_eq!((first.status, &first.body), (202, &again.body));
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    world.ended(&text(&again, "runId")).await;
    assert_eq!(world.count("SELECT count(*) FROM app.intents").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM app.runs").await, 1);
}

fn string(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
