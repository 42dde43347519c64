//! What was sent is what is kept: numbers to the digit, text to the byte, nesting to the limit.

use serde_json::json;

use crate::api::{got, refused_post};
use crate::intents::stored;
use crate::scratch::Scratch;
use crate::support::World;

#[tokio::test]
async fn numbers_and_text_survive_to_the_row() {
    let world = World::new("exact_rows").await;
    let body = r#"{"goal":"Ünïcødé 😀 e\u0301 \ud83d\ude00\u202e\\u0000 \u0001",
        "inputs":{"zz":12345678901234567890,"a":1.10,"10":-0.10,"9":1e400,"tiny":1e-400,
                  "pi":3.14159265358979323846264338327950288419716939937510,
                  "é😀":"e\u0301","":{"list":[1.0,100,1E2,-12345678901234567891]}},
        "constraints":{"n":9007199254740993,"m":0.30000000000000004}}"#;
    let intent = world.intent(body).await;
    let (goal, _) = stored(&world, &intent).await;
    assert_eq!(
        goal, "Ünïcødé 😀 e\u{301} 😀\u{202e}\\u0000 \u{1}",
        "not normalised"
    );
    let text = async |path: &str| -> String {
        sqlx::query_scalar("SELECT payload #>> $2::text[] FROM app.intents WHERE id = $1")
            .bind(&intent)
            .bind(path)
            .fetch_one(&world.app)
            .await
            .expect(path)
    };
    for (path, expected) in [
        ("{inputs,zz}", "12345678901234567890"),
        ("{inputs,a}", "1.10"),
        ("{inputs,10}", "-0.10"),
        (
            "{inputs,pi}",
            "3.14159265358979323846264338327950288419716939937510",
        ),
        ("{inputs,é😀}", "e\u{301}"),
        (
            "{inputs,\"\",list}",
            "[1.0, 100, 100, -12345678901234567891]",
        ),
        ("{constraints,n}", "9007199254740993"),
        ("{constraints,m}", "0.30000000000000004"),
    ] {
        assert_eq!(text(path).await, expected, "{path}");
    }
    let exact: bool = sqlx::query_scalar(
        "SELECT (payload #> '{inputs,9}')::numeric = 1e400::numeric
            AND (payload #> '{inputs,tiny}')::numeric = 1e-400::numeric
         FROM app.intents WHERE id = $1",
    )
    .bind(&intent)
    .fetch_one(&world.app)
    .await
    .unwrap();
    assert!(exact, "exponents beyond a double");
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn numbers_and_text_survive_to_the_view() {
    let scratch = Scratch::new("exact_view");
    // To the limit of 128: the fixture, its response, the tool calls, the call and its arguments stand around it.
    let deep = "[".repeat(123) + &"]".repeat(123);
    let args =
        format!(r#"{{"big":12345678901234567890,"dec":1.10,"e":"e\u0301 😀","deep":{deep}}}"#);
    let fixture = format!(
        r#"{{"key":"default","schemaVersion":1,"response":{{"prompt":"p","toolCalls":[{{"name":"t","args":{args}}}],"responses":[{{"n":0.30000000000000004}}],"diffs":[98765432109876543210.50]}}}}"#
    );
    scratch.file("default.json", &fixture);
    let world = World::with("exact_view", |options| {
        options.env("OC_FIXTURES_DIR", scratch.path().display())
    })
    .await;
    let intent = world
        .intent(r#"{"goal":"g","inputs":{},"constraints":{}}"#)
        .await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let text = got(&world, &format!("/runs/{run}")).await.text();
    for exact in [
        r#""big":12345678901234567890"#,
        r#""dec":1.10"#,
        "\"e\":\"e\u{301} 😀\"",
        r#"{"n":0.30000000000000004}"#,
        r#""inline":98765432109876543210.50"#,
        r#""status":"succeeded""#,
        &format!(r#""deep":{deep}"#),
    ] {
        assert!(text.contains(exact), "{exact} in {text}");
    }
}

#[tokio::test]
async fn nesting_of_128_is_stored_and_runs_and_129_is_refused() {
    let world = World::new("exact_depth").await;
    let body = |field: &str, deep: &str| {
        let (inputs, constraints) = match field {
            "inputs" => (deep, "{}"),
            _ => ("{}", deep),
        };
        format!(r#"{{"goal":"g","inputs":{inputs},"constraints":{constraints}}}"#)
    };
    // The body itself is the first level.
    let objects = |depth: usize| r#"{"a":"#.repeat(depth) + "1.10" + &"}".repeat(depth);
    let lists = |depth: usize| {
        format!(
            r#"{{"a":{}{}}}"#,
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    for field in ["inputs", "constraints"] {
        for (deep, too_deep) in [(objects(127), objects(128)), (lists(127), lists(128))] {
            let intent = world.intent(&body(field, &deep)).await;
            let text: String =
                sqlx::query_scalar("SELECT (payload -> $2)::text FROM app.intents WHERE id = $1")
                    .bind(&intent)
                    .bind(field)
                    .fetch_one(&world.app)
                    .await
                    .unwrap();
            assert_eq!(text.replace(": ", ":"), deep);
            let run = world.run(&intent).await;
            assert_eq!(world.ended(&run).await["status"], json!("succeeded"));

            let refused = refused_post(&world, "/intents", body(field, &too_deep)).await;
            assert_eq!(refused, r#"400 {"error":"invalid json"}"#);
        }
    }
}
