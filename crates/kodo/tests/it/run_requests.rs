//! `POST /intents/:id/run` that succeeds.

use serde_json::{Value, json};

use crate::api::{got, is_id};
use crate::support::{DEMO_INTENT, World, text};

#[tokio::test]
async fn every_accepted_request_is_a_run_of_its_own_with_or_without_a_trace_id() {
    let world = World::new("run_requests").await;
    let intent = world.intent(DEMO_INTENT).await;
    for (body, trace) in [
        ("", Value::Null),
        ("{}", Value::Null),
        (r#" { "traceId" : null } "#, Value::Null),
        (r#"{"traceId":"po-demo"}"#, json!("po-demo")),
        (r#"{"traceId":""}"#, json!("")),
        (
            r#"{"traceId":"ein Ü 😀 e\u0301"}"#,
            json!("ein Ü 😀 e\u{301}"),
        ),
    ] {
        let answer = world
            .client
            .post(&format!("/intents/{intent}/run"), body)
            .await
            .unwrap();
        assert_eq!(answer.status, 202, "{body}: {}", answer.text());
        let run = text(&answer, "runId");
        assert!(is_id(&run, "run_"), "{run}");
        let view = world.ended(&run).await;
        assert_eq!(view["status"], "succeeded");
        assert_eq!(view["traceId"], trace, "{body}");
        let row: (String, String, Option<String>) =
            sqlx::query_as("SELECT intent_id, workflow_id, trace_id FROM app.runs WHERE id = $1")
                .bind(&run)
                .fetch_one(&world.app)
                .await
                .unwrap();
        assert_eq!(row.0, intent);
        assert_eq!(row.1, text(&answer, "workflowId"));
        assert_eq!(json!(row.2), trace);
    }

    let first = world.run(&intent).await;
    let second = world.run(&intent).await;
    assert_ne!(first, second);
    for run in [&first, &second] {
        assert_eq!(world.ended(run).await["runId"], json!(run));
    }

    // Ids may come percent-encoded.
    let encoded = intent.replace('_', "%5F");
    let run = world.run(&encoded).await;
    world.ended(&run).await;
    let view = got(&world, &format!("/runs/{}", run.replace('_', "%5f"))).await;
    assert_eq!(text(&view, "runId"), run);
}
