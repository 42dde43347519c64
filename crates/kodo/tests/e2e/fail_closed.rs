//! Walkthrough E of the course: what is no valid request is refused, and not a byte of either database is another.

use crate::dump::dump;

use crate::api::{committed_fixtures, got};
use crate::exchange::start_demo;
use crate::support::{World, text};

/// Every table of both databases, with nothing left out.
pub async fn everything(world: &World) -> String {
    let databases = world.databases();
    let app = dump(&databases.app, &[], None)
        .await
        .expect("the product database");
    let system = dump(&databases.system, &[], None)
        .await
        .expect("the system database");
    app.text + &system.text
}

#[tokio::test]
async fn what_is_no_intent_or_run_request_is_refused_and_nothing_is_written() {
    let world = World::apart("e2e_closed", committed_fixtures).await;
    let (stored, accepted) = start_demo(&world.client).await;
    let intent = text(&stored, "intentId");
    let path = format!("/intents/{intent}/run");
    let run = text(&accepted, "runId");
    world.ended(&run).await;
    let before = everything(&world).await;

    for (path, body, error) in [
        ("/intents", "{bad", "invalid json"),
        (
            "/intents",
            r#"{"inputs":{},"constraints":{}}"#,
            "invalid Intent: data must have required property 'goal'",
        ),
        (
            path.as_str(),
            r#"{"unknownField":"x"}"#,
            "invalid RunRequest: data must NOT have additional properties",
        ),
        (&path, "{bad", "invalid json"),
    ] {
        let refused = world.client.post(path, body).await.unwrap();
        assert_eq!(refused.status, 400, "{path} {body}");
        assert_eq!(text(&refused, "error"), error, "{path} {body}");
        let details = refused.json()["details"].as_array().map(Vec::len);
        assert_eq!(
            details,
            (error != "invalid json").then_some(1),
            "{path} {body}"
        );
    }
    assert_eq!(everything(&world).await, before);

    // What is written is seen by that look.
    let later = world.run(&intent).await;
    world.ended(&later).await;
    assert_ne!(everything(&world).await, before);
    assert_eq!(
        text(&got(&world, &format!("/runs/{run}")).await, "status"),
        "succeeded"
    );
}
