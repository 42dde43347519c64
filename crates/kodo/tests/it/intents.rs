//! `POST /intents` that succeeds: what is stored is what was sent.

use serde_json::{Value, json};

use crate::support::World;

/// Goal and payload as the row has them.
pub async fn stored(world: &World, intent: &str) -> (String, Value) {
    let (goal, payload): (String, String) =
        sqlx::query_as("SELECT goal, payload::text FROM app.intents WHERE id = $1")
            .bind(intent)
            .fetch_one(&world.app)
            .await
            .expect("the row");
    (goal, serde_json::from_str(&payload).expect("JSON"))
}

#[tokio::test]
async fn an_intent_is_stored_as_it_was_sent_with_the_shortest_goal_and_without_connectors() {
    let world = World::new("intents_stored").await;
    for (body, payload) in [
        (
            r#"{"goal":"g","inputs":{"a":[1,{"b":null}]},"constraints":{"c":true},"connectors":["x","x",""]}"#,
            json!({"inputs": {"a": [1, {"b": null}]}, "constraints": {"c": true}, "connectors": ["x", "x", ""]}),
        ),
        (
            r#" { "constraints" : {} , "inputs" : {} , "goal" : "g" } "#,
            json!({"inputs": {}, "constraints": {}}),
        ),
        (
            r#"{"goal":"g","inputs":{},"constraints":{},"connectors":[]}"#,
            json!({"inputs": {}, "constraints": {}, "connectors": []}),
        ),
        (
            r#"{"goal":"g","inputs":{},"constraints":{},"connectors":null}"#,
            json!({"inputs": {}, "constraints": {}}),
        ),
        // Of two equal keys the last one counts, as everywhere in JSON.
        (
            r#"{"goal":"first","goal":"g","inputs":{},"constraints":{}}"#,
            json!({"inputs": {}, "constraints": {}}),
        ),
    ] {
        let intent = world.intent(body).await;
        assert_eq!(
            stored(&world, &intent).await,
            ("g".to_owned(), payload),
            "{body}"
        );
    }

    // Null connectors are none, also to the run.
    let intent = world
        .intent(r#"{"goal":"g","inputs":{},"constraints":{},"connectors":null}"#)
        .await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");

    for goal in [" ", "é", "😀", "\u{301}", "\u{1}", "\u{7f}", "\u{ffff}"] {
        let body = json!({"goal": goal, "inputs": {}, "constraints": {}}).to_string();
        let intent = world.intent(&body).await;
        assert_eq!(stored(&world, &intent).await.0, goal);
    }
}
