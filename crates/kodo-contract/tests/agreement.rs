//! Schema and type agree, both ways: what a type can be passes its schema and comes back the same,
//! and what passes a schema can be read as the type.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Debug;

use kodo_contract::{
    ArtifactEntry, ArtifactList, ArtifactRef, Boundary, ContentHash, Intent, Phase, Plan, RunError,
    RunId, RunRequest, RunStatus, RunView, StepId, StepView, StoredContent, StoredOutput,
    Timestamp, ToolCall, ToolFile, ToolResult, decode, encode, parse_json, sha256_hex,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

/// Any text that Postgres can store.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

/// Any number but `-0`, of which serde and Postgres alike make `0`.
fn number() -> impl Strategy<Value = Value> {
    "0|-?(0\\.[0-9]{1,6}|[1-9][0-9]{0,24}(\\.[0-9]{1,6})?)([eE][+-]?[0-9]{1,2})?"
        .prop_map(|text| parse_json(text.as_bytes()).unwrap())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    vec((text(), json_value()), 0..4).prop_map(|all| all.into_iter().collect())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    // The years 0000 to 9999: what four digits can write.
    (-62_167_219_200_i64..=253_402_300_799)
        .prop_map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap().into())
}

fn step_id() -> impl Strategy<Value = StepId> {
    prop_oneof![Just(StepId::plan()), (0_usize..256).prop_map(StepId::tool)]
}

fn intent() -> impl Strategy<Value = Intent> {
    (
        "[^\0]{1,9}",
        object(),
        object(),
        option::of(vec(text(), 0..3)),
    )
        .prop_map(|(goal, inputs, constraints, connectors)| Intent {
            goal,
            inputs,
            constraints,
            connectors,
        })
}

fn run_request() -> impl Strategy<Value = RunRequest> {
    option::of(text()).prop_map(|trace_id| RunRequest { trace_id })
}

fn run_error() -> impl Strategy<Value = RunError> {
    ("[^\0]{1,9}", text(), option::of(step_id())).prop_map(|(code, message, step_id)| RunError {
        code,
        message,
        step_id,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let id = || "[^\0]{1,128}";
    let call = (
        option::of(id()),
        id(),
        object(),
        option::of(vec(id(), 0..3)),
    )
        .prop_map(|(id, name, args, deps)| ToolCall {
            id,
            name,
            args,
            deps,
        });
    let values = || vec(json_value(), 0..3);
    (text(), vec(call, 0..3), values(), values()).prop_map(
        |(prompt, tool_calls, responses, diffs)| Plan {
            prompt,
            tool_calls,
            responses,
            diffs,
        },
    )
}

/// A size that JavaScript's numbers hold.
fn size() -> impl Strategy<Value = u64> {
    0..=9_007_199_254_740_991_u64
}

fn tool_result() -> impl Strategy<Value = ToolResult> {
    let encoding = option::of(Just("base64".to_owned()));
    let flag = || option::of(any::<bool>());
    let file = (
        "[^\0]{1,9}",
        option::of(text()),
        option::of(size()),
        encoding,
        flag(),
        flag(),
    )
        .prop_map(
            |(name, content, size, encoding, executable, stored)| ToolFile {
                sha256: sha256_hex(name.as_bytes()),
                name,
                content,
                size,
                encoding,
                executable,
                stored,
            },
        );
    let report = vec((text(), json_value()), 0..3).prop_map(|all| all.into_iter().collect());
    (
        "[^\0]{1,9}",
        any::<i32>(),
        text(),
        text(),
        vec(file, 0..3),
        option::of("[^\0]{1,9}"),
        option::of(report),
    )
        .prop_map(
            |(provider, exit_code, stdout, stderr, files, reason, report)| ToolResult {
                provider,
                exit_code,
                stdout,
                stderr,
                files,
                reason,
                report,
                workspace: None,
            },
        )
}

fn stored_output() -> impl Strategy<Value = StoredOutput> {
    (any::<bool>(), size()).prop_map(|(stored, size)| StoredOutput {
        stored,
        sha256: ContentHash::of(b"x"),
        size,
    })
}

fn stored_content() -> impl Strategy<Value = StoredContent> {
    (
        any::<bool>(),
        option::of("[^\0]{1,9}"),
        "[^\0]{1,9}",
        size(),
        option::of(any::<bool>()),
    )
        .prop_map(
            |(stored, name, media_type, size, executable)| StoredContent {
                stored,
                sha256: ContentHash::of(media_type.as_bytes()),
                name,
                media_type,
                size,
                executable,
            },
        )
}

fn artifact_list() -> impl Strategy<Value = ArtifactList> {
    let artifact = (
        (step_id(), 0..=2_147_483_647_u32, text(), option::of(text())),
        "[^\0]{1,9}",
        size(),
        text(),
        any::<bool>(),
    )
        .prop_map(
            |((step_id, index, kind, name), media_type, size, uri, stored)| ArtifactEntry {
                step_id,
                index,
                kind,
                name,
                sha256: ContentHash::of(media_type.as_bytes()),
                media_type,
                size,
                uri,
                stored,
            },
        );
    vec(artifact, 0..3).prop_map(|artifacts| ArtifactList {
        run_id: RunId::generate(),
        artifacts,
    })
}

fn run_view() -> impl Strategy<Value = RunView> {
    let step = (
        step_id(),
        select(&Phase::ALL[..]),
        json_value(),
        timestamp(),
        option::of(timestamp()),
    )
        .prop_map(
            |(step_id, phase, output, started_at, finished_at)| StepView {
                step_id,
                phase,
                output,
                started_at,
                finished_at,
            },
        );
    let artifact = (text(), text(), json_value()).prop_map(|(kind, uri, inline)| ArtifactRef {
        sha256: sha256_hex(uri.as_bytes()),
        kind,
        uri,
        inline,
    });
    (
        select(&RunStatus::ALL[..]),
        vec(step, 0..3),
        vec(artifact, 0..3),
        option::of(text()),
    )
        .prop_map(|(status, steps, artifacts, trace_id)| RunView {
            run_id: RunId::generate(),
            status,
            steps,
            artifacts,
            trace_id,
        })
}

/// One change to a document: at the place that `at` picks, something that is likely to be almost
/// right.
#[derive(Clone, Debug)]
enum Change {
    Replace(usize, Value),
    Remove(usize),
    Add(usize, String, Value),
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        json_value(),
        number(),
        select(vec![
            json!("2024-02-29T23:59:59.999Z"),
            json!("2023-02-29T00:00:00.000Z"),
            json!("1900-02-29T00:00:00.000Z"),
            json!("2000-02-29T24:00:00.000Z"),
            json!("2026-04-31T00:00:00.000Z"),
            json!("2026-01-02T03:04:60.000Z"),
            json!("tool-1"),
            json!("planning"),
            json!("succeeded"),
            json!(""),
            json!([]),
            json!({}),
            json!(2_147_483_648_i64),
        ]),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}Z"
            .prop_map(Value::from),
        "[ -~é]{1,300}".prop_map(Value::from),
    ];
    let at = any::<usize>();
    prop_oneof![
        3 => (at, value.clone()).prop_map(|(at, value)| Change::Replace(at, value)),
        1 => at.prop_map(Change::Remove),
        1 => (at, text(), value).prop_map(|(at, key, value)| Change::Add(at, key, value)),
    ]
}

fn pointers(value: &Value, path: &str, into: &mut Vec<String>) {
    into.push(path.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Array(items) => (0..items.len())
            .for_each(|index| pointers(&items[index], &format!("{path}/{index}"), into)),
        Value::Object(members) => members
            .iter()
            .for_each(|(key, member)| pointers(member, &format!("{path}/{}", escape(key)), into)),
        _ => {}
    }
}

fn apply(change: Change, document: &mut Value) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    let (Change::Replace(at, _) | Change::Remove(at) | Change::Add(at, _, _)) = &change;
    let target = document.pointer_mut(&all[at % all.len()]).unwrap();
    match change {
        Change::Replace(_, value) => *target = value,
        Change::Remove(at) => match target {
            Value::Object(members) if !members.is_empty() => {
                let key = members.keys().nth(at % members.len()).unwrap().clone();
                members.shift_remove(&key);
            }
            Value::Array(items) if !items.is_empty() => {
                items.remove(at % items.len());
            }
            _ => {}
        },
        Change::Add(_, key, value) => match target {
            Value::Object(members) => {
                members.insert(key, value);
            }
            Value::Array(items) => items.push(value),
            _ => {}
        },
    }
}

fn holds<T: Boundary + PartialEq + Debug>(
    value: &T,
    changes: Vec<Change>,
) -> Result<(), TestCaseError> {
    let mut document = encode(value).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&decode::<T>(&document).unwrap(), value);
    for change in changes {
        apply(change, &mut document);
        if let Err(invalid) = decode::<T>(&document) {
            for violation in invalid.violations {
                prop_assert_ne!(&violation.schema_path, "#", "{} {}", document, violation);
                prop_assert!(document.pointer(&violation.instance_path).is_some());
            }
        }
    }
    Ok(())
}

macro_rules! agreement {
    ($($name:ident: $strategy:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: 400,
                // A failing case is printed; a test leaves no files in the tree.
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(value in $strategy, changes in vec(change(), 0..6)) {
                    holds(&value, changes)?;
                }
            )*
        }
    };
}

agreement! {
    intent_and_its_schema_agree: intent();
    run_request_and_its_schema_agree: run_request();
    run_view_and_its_schema_agree: run_view();
    run_error_and_its_schema_agree: run_error();
    plan_and_its_schema_agree: plan();
    tool_result_and_its_schema_agree: tool_result();
    stored_content_and_its_schema_agree: stored_content();
    stored_output_and_its_schema_agree: stored_output();
    artifact_list_and_its_schema_agree: artifact_list();
}
