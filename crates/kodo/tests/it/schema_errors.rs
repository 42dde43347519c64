//! What the schema refuses: all violations at once, as Ajv 8 words them, and no row.

use crate::api::refused_post;
use crate::support::{DEMO_INTENT, World};

#[tokio::test]
async fn an_invalid_intent_is_told_everything_that_is_wrong_with_it() {
    let world = World::new("schema_intent").await;
    let post = async |body: &'static str| refused_post(&world, "/intents", body).await;

    // Walkthrough E.
    insta::assert_snapshot!(
        post(r#"{"inputs":{},"constraints":{}}"#).await,
        @r##"400 {"error":"invalid Intent: data must have required property 'goal'","details":[{"instancePath":"","schemaPath":"#/required","keyword":"required","params":{"missingProperty":"goal"},"message":"must have required property 'goal'"}]}"##
    );
    insta::assert_snapshot!(
        post(r#"{"goal":"","inputs":{},"constraints":{}}"#).await,
        @r##"400 {"error":"invalid Intent: data/goal must NOT have fewer than 1 characters","details":[{"instancePath":"/goal","schemaPath":"#/properties/goal/minLength","keyword":"minLength","params":{"limit":1},"message":"must NOT have fewer than 1 characters"}]}"##
    );
    insta::assert_snapshot!(
        post(r#"{"goal":null,"inputs":[],"constraints":"x","connectors":{}}"#).await,
        @r##"400 {"error":"invalid Intent: data/goal must be string; data/inputs must be object; data/constraints must be object; data/connectors must be array,null","details":[{"instancePath":"/goal","schemaPath":"#/properties/goal/type","keyword":"type","params":{"type":"string"},"message":"must be string"},{"instancePath":"/inputs","schemaPath":"#/properties/inputs/type","keyword":"type","params":{"type":"object"},"message":"must be object"},{"instancePath":"/constraints","schemaPath":"#/properties/constraints/type","keyword":"type","params":{"type":"object"},"message":"must be object"},{"instancePath":"/connectors","schemaPath":"#/properties/connectors/type","keyword":"type","params":{"type":["array","null"]},"message":"must be array,null"}]}"##
    );
    insta::assert_snapshot!(
        post(r#"{"goal":"g","inputs":{},"constraints":{},"connectors":["ok",1,null]}"#).await,
        @r##"400 {"error":"invalid Intent: data/connectors/1 must be string; data/connectors/2 must be string","details":[{"instancePath":"/connectors/1","schemaPath":"#/properties/connectors/items/type","keyword":"type","params":{"type":"string"},"message":"must be string"},{"instancePath":"/connectors/2","schemaPath":"#/properties/connectors/items/type","keyword":"type","params":{"type":"string"},"message":"must be string"}]}"##
    );
    // Required in schema order, then extra keys in the order sent, then properties in schema order.
    insta::assert_snapshot!(
        post(r#"{"z":1,"connectors":[true],"10":2,"goal":"","a/b":3}"#).await,
        @r##"400 {"error":"invalid Intent: data must have required property 'inputs'; data must have required property 'constraints'; data must NOT have additional properties; data must NOT have additional properties; data must NOT have additional properties; data/goal must NOT have fewer than 1 characters; data/connectors/0 must be string","details":[{"instancePath":"","schemaPath":"#/required","keyword":"required","params":{"missingProperty":"inputs"},"message":"must have required property 'inputs'"},{"instancePath":"","schemaPath":"#/required","keyword":"required","params":{"missingProperty":"constraints"},"message":"must have required property 'constraints'"},{"instancePath":"","schemaPath":"#/additionalProperties","keyword":"additionalProperties","params":{"additionalProperty":"z"},"message":"must NOT have additional properties"},{"instancePath":"","schemaPath":"#/additionalProperties","keyword":"additionalProperties","params":{"additionalProperty":"10"},"message":"must NOT have additional properties"},{"instancePath":"","schemaPath":"#/additionalProperties","keyword":"additionalProperties","params":{"additionalProperty":"a/b"},"message":"must NOT have additional properties"},{"instancePath":"/goal","schemaPath":"#/properties/goal/minLength","keyword":"minLength","params":{"limit":1},"message":"must NOT have fewer than 1 characters"},{"instancePath":"/connectors/0","schemaPath":"#/properties/connectors/items/type","keyword":"type","params":{"type":"string"},"message":"must be string"}]}"##
    );
    insta::assert_snapshot!(
        post("{}").await,
        @r##"400 {"error":"invalid Intent: data must have required property 'goal'; data must have required property 'inputs'; data must have required property 'constraints'","details":[{"instancePath":"","schemaPath":"#/required","keyword":"required","params":{"missingProperty":"goal"},"message":"must have required property 'goal'"},{"instancePath":"","schemaPath":"#/required","keyword":"required","params":{"missingProperty":"inputs"},"message":"must have required property 'inputs'"},{"instancePath":"","schemaPath":"#/required","keyword":"required","params":{"missingProperty":"constraints"},"message":"must have required property 'constraints'"}]}"##
    );
}

#[tokio::test]
async fn an_invalid_run_request_is_told_as_much_and_what_is_no_object_that_alone() {
    let world = World::new("schema_run").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = format!("/intents/{intent}/run");
    let post = async |body: &'static str| refused_post(&world, &run, body).await;

    // Walkthrough E.
    insta::assert_snapshot!(
        post(r#"{"unknownField":"x"}"#).await,
        @r##"400 {"error":"invalid RunRequest: data must NOT have additional properties","details":[{"instancePath":"","schemaPath":"#/additionalProperties","keyword":"additionalProperties","params":{"additionalProperty":"unknownField"},"message":"must NOT have additional properties"}]}"##
    );
    insta::assert_snapshot!(
        post(r#"{"traceId":7,"traceid":"x"}"#).await,
        @r##"400 {"error":"invalid RunRequest: data must NOT have additional properties; data/traceId must be string,null","details":[{"instancePath":"","schemaPath":"#/additionalProperties","keyword":"additionalProperties","params":{"additionalProperty":"traceid"},"message":"must NOT have additional properties"},{"instancePath":"/traceId","schemaPath":"#/properties/traceId/type","keyword":"type","params":{"type":["string","null"]},"message":"must be string,null"}]}"##
    );

    let intent = world.intent(DEMO_INTENT).await;
    let run = format!("/intents/{intent}/run");
    for body in [
        "[]",
        "null",
        "true",
        "0",
        r#""x""#,
        r#"[{"goal":"g"}]"#,
        r#""\u0000""#,
        r#"["\u0000",1e200000]"#,
        "1e200000",
    ] {
        for (path, name) in [("/intents", "Intent"), (run.as_str(), "RunRequest")] {
            let expected = format!(
                r##"400 {{"error":"invalid {name}: data must be object","details":[{{"instancePath":"","schemaPath":"#/type","keyword":"type","params":{{"type":"object"}},"message":"must be object"}}]}}"##
            );
            assert_eq!(refused_post(&world, path, body).await, expected, "{body}");
        }
    }
}
