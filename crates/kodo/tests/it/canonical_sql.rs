//! Postgres takes the text that a row keeps for the JSON that was hashed: whoever has only a psql can check a hash.

use crate::test_databases::TestDatabases;
use kodo_contract::{canonical_json, parse_stored_json, sha256_hex};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Number, Value};
use sqlx::PgPool;

use crate::support::{program, server};

/// Characters at every edge that matters: escapes, the end of ASCII, both sides of the surrogates, the last ones.
const EDGES: &[char] = &[
    'a',
    'b',
    '"',
    '\\',
    '/',
    '\u{1}',
    '\u{8}',
    '\t',
    '\n',
    '\u{c}',
    '\r',
    '\u{1f}',
    '\u{7f}',
    '\u{80}',
    'é',
    '\u{2028}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{fb33}',
    '\u{fffd}',
    '\u{ffff}',
    '\u{10000}',
    '😀',
    '\u{10fffe}',
    '\u{10ffff}',
];

fn texts() -> impl Strategy<Value = String> {
    let edges = prop::collection::vec(prop::sample::select(EDGES), 0..6);
    prop_oneof![
        3 => edges.prop_map(|characters| characters.into_iter().collect()),
        1 => any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
}

fn numbers() -> impl Strategy<Value = Number> {
    "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?".prop_map(|text| {
        let value = parse_stored_json(&text).unwrap();
        value.as_number().cloned().unwrap()
    })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers().prop_map(Value::Number),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((texts(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Whether each canonical text is the value to Postgres, and its hash.
async fn by_postgres(pool: &PgPool, texts: &[String], canonical: &[String]) -> Vec<(bool, String)> {
    sqlx::query_as(
        "SELECT t::jsonb = c::jsonb, encode(sha256(convert_to(c, 'UTF8')), 'hex')
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (t, c, place) ORDER BY place",
    )
    .bind(texts)
    .bind(canonical)
    .fetch_all(pool)
    .await
    .expect("the hashes")
}

#[tokio::test]
async fn the_canonical_text_is_the_value_to_postgres_and_has_the_hash_that_we_record() {
    let databases = TestDatabases::one(&program(), &server(), "canonical_sql")
        .await
        .unwrap();
    let pool = databases.databases.app_pool();
    let mut runner = TestRunner::deterministic();
    let strategy = values();
    let mut drawn: Vec<Value> = (0..3000)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect();
    // As deep as anything that is stored, and numbers at the edges of each notation.
    for text in [
        format!("{}1{}", "[".repeat(160), "]".repeat(160)),
        format!("{}1{}", "{\"a\":".repeat(160), "}".repeat(160)),
        "[0, -0.0, 0e9, 1e20, 1e21, 123e19, 0.000001, 0.0000001, 1.5e-6, 1.5e-7, -1e300, 1e-300]"
            .to_owned(),
        "[100000000000000000000, 1000000000000000000000, 12345678901234567890.10, 1e131071]"
            .to_owned(),
    ] {
        drawn.push(parse_stored_json(&text).unwrap());
    }
    let texts: Vec<String> = drawn.iter().map(Value::to_string).collect();
    let canonical: Vec<String> = drawn.iter().map(canonical_json).collect();
    let found = by_postgres(&pool, &texts, &canonical).await;
    assert_eq!(found.len(), drawn.len());
    for (text, (same, sha256)) in canonical.iter().zip(found) {
        assert!(same, "{text}");
        assert_eq!(sha256, sha256_hex(text.as_bytes()), "{text}");
    }
}
