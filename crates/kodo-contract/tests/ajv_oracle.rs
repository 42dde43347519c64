//! The validator says word for word what Ajv 8 says: each row of `ajv-oracle.json` was written by
//! Ajv itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use kodo_contract::{
    ArtifactList, Boundary, Intent, Invalid, Plan, RunError, RunRequest, RunView, StoredContent,
    ToolResult, Violation, decode, parse_json,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    /// The title of a schema, which is the name of a boundary type.
    schema: String,
    /// The body as JSON text, so that key order and number spellings are ours to read.
    body: String,
    errors: Vec<Violation>,
    /// What Ajv's `errorsText` makes of the errors.
    text: String,
}

fn check<T: Boundary>(row: &Row) {
    assert_eq!(row.schema, T::NAME);
    let body = parse_json(row.body.as_bytes()).unwrap();
    let place = format!("{} {}", row.schema, row.body);
    assert_eq!(T::schema().violations(&body), row.errors, "{place}");
    match decode::<T>(&body) {
        Ok(_) => assert!(row.errors.is_empty(), "{place}"),
        Err(Invalid { name, violations }) => {
            assert_eq!(violations, row.errors, "{place}");
            let text = Invalid { name, violations }.to_string();
            assert_eq!(text, format!("invalid {}: {}", row.schema, row.text));
        }
    }
}

#[test]
fn every_row_of_the_oracle_is_reproduced() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("ajv-oracle.json")).unwrap();
    assert!(rows.len() > 40);
    for row in &rows {
        match row.schema.as_str() {
            "Intent" => check::<Intent>(row),
            "RunRequest" => check::<RunRequest>(row),
            "RunView" => check::<RunView>(row),
            "RunError" => check::<RunError>(row),
            "Plan" => check::<Plan>(row),
            "ToolResult" => check::<ToolResult>(row),
            "StoredContent" => check::<StoredContent>(row),
            "ArtifactList" => check::<ArtifactList>(row),
            other => panic!("no boundary type {other}"),
        }
    }
}
