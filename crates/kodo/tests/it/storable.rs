//! What Postgres cannot store is the client's to mend: 400 with a detail that points at it, and no row.

use serde_json::Value;

use crate::api::refused_post;
use crate::support::{DEMO_INTENT, World};

#[tokio::test]
async fn a_nul_is_refused_with_a_detail_that_points_at_it() {
    let world = World::new("storable_nul").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = format!("/intents/{intent}/run");
    insta::assert_snapshot!(
        refused_post(&world, "/intents", r#"{"goal":"a\u0000b","inputs":{},"constraints":{}}"#).await,
        @r##"400 {"error":"invalid Intent: data/goal must NOT contain the character U+0000","details":[{"instancePath":"/goal","schemaPath":"#/storable","keyword":"storable","params":{"reason":"nul"},"message":"must NOT contain the character U+0000"}]}"##
    );
    insta::assert_snapshot!(
        refused_post(&world, &run, r#"{"traceId":"\u0000"}"#).await,
        @r##"400 {"error":"invalid RunRequest: data/traceId must NOT contain the character U+0000","details":[{"instancePath":"/traceId","schemaPath":"#/storable","keyword":"storable","params":{"reason":"nul"},"message":"must NOT contain the character U+0000"}]}"##
    );
    // In a key, and behind a key that needs escaping.
    insta::assert_snapshot!(
        refused_post(&world, "/intents", r#"{"goal":"g","inputs":{"a/b":{"k\u0000":1}},"constraints":{}}"#).await,
        @r##"400 {"error":"invalid Intent: data/inputs/a~1b/k\u0000 must NOT contain the character U+0000","details":[{"instancePath":"/inputs/a~1b/k\u0000","schemaPath":"#/storable","keyword":"storable","params":{"reason":"nul"},"message":"must NOT contain the character U+0000"}]}"##
    );
}

/// The paths of the details of a refused intent.
async fn pointed_at(world: &World, body: &str) -> Vec<String> {
    let shown = refused_post(world, "/intents", body.to_owned()).await;
    let body = shown.strip_prefix("400 ").expect("a 400");
    let body: Value = serde_json::from_str(body).unwrap();
    let details = body["details"].as_array().expect("details");
    details
        .iter()
        .map(|detail| {
            assert_eq!(detail["keyword"], "storable", "{detail}");
            detail["instancePath"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn every_place_that_cannot_be_stored_is_found_and_what_is_only_odd_is_stored() {
    let world = World::new("storable_places").await;
    for (body, places) in [
        (
            r#"{"goal":"g","inputs":{"x":["ok",{"y":"\u0000"}]},"constraints":{}}"#,
            &["/inputs/x/1/y"][..],
        ),
        (
            r#"{"goal":"g","inputs":{},"constraints":{"\u0000":0}}"#,
            &["/constraints/\0"],
        ),
        (
            r#"{"goal":"g","inputs":{},"constraints":{},"connectors":["ok","\u0000"]}"#,
            &["/connectors/1"],
        ),
        // Beyond what `numeric`, and so `jsonb`, can hold.
        (
            r#"{"goal":"g","inputs":{"big":1e131072,"small":1e-16384},"constraints":{}}"#,
            &["/inputs/big", "/inputs/small"],
        ),
        (
            r#"{"goal":"g","inputs":{"n":1e999999999999999999999},"constraints":{}}"#,
            &["/inputs/n"],
        ),
    ] {
        assert_eq!(pointed_at(&world, body).await, places, "{body}");
    }
    // Numbers that fit one by one, and not all together.
    let nine = ["1e131071"; 9].join(",");
    let body = format!(r#"{{"goal":"g","inputs":{{"n":[{nine}]}},"constraints":{{}}}}"#);
    assert_eq!(pointed_at(&world, &body).await, ["/inputs/n/8"]);

    for body in [
        // An escaped backslash before u0000 is no NUL.
        r#"{"goal":"\\u0000","inputs":{},"constraints":{}}"#,
        r#"{"goal":"g","inputs":{"":"","\u0001":"\u001f\u007f\u0080\uffff\ufffe"},"constraints":{}}"#,
        r#"{"goal":"g","inputs":{"big":1e131071,"small":1e-16383},"constraints":{}}"#,
    ] {
        let intent = world.intent(body).await;
        let run = world.run(&intent).await;
        assert_eq!(world.ended(&run).await["status"], "succeeded", "{body}");
    }
}
