//! The product flow, as walkthrough C of the course has it.

use serde_json::json;

use crate::support::{DEMO_INTENT, World};

#[tokio::test]
async fn an_intent_becomes_a_run_that_succeeds_with_its_steps_and_artifacts() {
    let world = World::new("flow").await;
    let intent = world.intent(DEMO_INTENT).await;
    let started = world
        .client
        .post(
            &format!("/intents/{intent}/run"),
            r#"{"traceId":"po-demo"}"#,
        )
        .await
        .unwrap();
    assert_eq!(started.status, 202);
    let run = started.json()["runId"].as_str().unwrap().to_owned();
    let view = world.ended(&run).await;
    let keys: Vec<&String> = view.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["runId", "status", "steps", "artifacts", "traceId"]);
    assert_eq!(view["status"], "succeeded");
    assert_eq!(view["traceId"], "po-demo");
    assert_eq!(view["steps"][0]["phase"], "planning");
    assert_eq!(view["steps"][1]["stepId"], json!("tool-001"));
}
