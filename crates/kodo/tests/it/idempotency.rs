//! `Idempotency-Key`: the first answer again, whatever happened in between, and never a second row.

use kodo_dev::harness::Answer;
use tokio::task::JoinSet;

use crate::api::{NO_INTENT, keyed, refusal, rows, shown};
use crate::raw::{Raw, request};
use crate::support::{DEMO_INTENT, OTHER_INTENT, World, text};

const REUSED: &str = r#"422 {"error":"idempotency key reused with a different request"}"#;

fn is_replay(answer: &Answer) -> bool {
    match answer.header("idempotency-replayed") {
        None => false,
        Some(value) => {
            assert_eq!(value, "true");
            true
        }
    }
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer_again_also_after_kill_9() {
    let mut world = World::new("idempotency_replay").await;
    let intent = keyed(&world.client, "/intents", "key-1", DEMO_INTENT).await;
    assert_eq!((intent.status, is_replay(&intent)), (201, false));
    let path = format!("/intents/{}/run", text(&intent, "intentId"));
    let run = keyed(&world.client, &path, "key-1", r#"{"traceId":"t"}"#).await;
    assert_eq!((run.status, is_replay(&run)), (202, false));
    let written = (1, 1, 2, 0);
    assert_eq!(rows(&world).await, written);

    for restarted in [false, true] {
        if restarted {
            let options = world.options.clone();
            world.restart(&options).await;
        }
        // Quoted or bare, and however the same body is spelled.
        for (key, body) in [
            ("key-1", DEMO_INTENT),
            ("\"key-1\"", DEMO_INTENT),
            (
                "key-1",
                r#" { "connectors" : [ ] , "constraints":{"determinism":true},
                      "inputs":{"repo":"sisu\u002dkodo"}, "goal":"demo" } "#,
            ),
        ] {
            let again = keyed(&world.client, "/intents", key, body).await;
            assert!(is_replay(&again), "{key} {body}");
            assert_eq!(shown(&again), shown(&intent));
            assert_eq!(again.body, intent.body);
            assert_eq!(again.header("content-type"), Some("application/json"));
            assert!(again.header("x-request-id").is_some());
        }
        let again = keyed(&world.client, &path, "key-1", "\n{\"traceId\" : \"t\"}").await;
        assert!(is_replay(&again));
        assert_eq!((again.status, &again.body), (202, &run.body));
        assert_eq!(rows(&world).await, written);
    }
    let view = world.ended(&text(&run, "runId")).await;
    assert_eq!(view["status"], "succeeded");
}

#[tokio::test]
async fn a_key_of_another_request_is_422_and_writes_nothing() {
    let world = World::new("idempotency_reused").await;
    let number =
        |digits: &str| format!(r#"{{"goal":"g","inputs":{{"n":{digits}}},"constraints":{{}}}}"#);
    let first = keyed(
        &world.client,
        "/intents",
        "k",
        &number("12345678901234567890"),
    )
    .await;
    assert_eq!(first.status, 201);
    for other in [
        OTHER_INTENT.to_owned(),
        // Not the same number, though the same double.
        number("12345678901234567891"),
        number("\"12345678901234567890\""),
    ] {
        let refused = refusal(
            &world,
            "POST",
            "/intents",
            &[("idempotency-key", "k")],
            other,
        )
        .await;
        assert_eq!(refused, REUSED);
    }

    let one = world.intent(DEMO_INTENT).await;
    let two = world.intent(DEMO_INTENT).await;
    let run = |intent: &str| format!("/intents/{intent}/run");
    assert_eq!(keyed(&world.client, &run(&one), "k", "").await.status, 202);
    let other_trace = r#"{"traceId":"t"}"#;
    for (path, body) in [(run(&one), other_trace), (run(&two), "")] {
        let refused = refusal(&world, "POST", &path, &[("idempotency-key", "k")], body).await;
        assert_eq!(refused, REUSED, "{path} {body}");
    }
    // No body, an empty object and a null are one request.
    for same in ["", "{}", r#"{"traceId":null}"#] {
        let again = keyed(&world.client, &run(&one), "k", same).await;
        assert!(is_replay(&again), "{same:?}");
    }
    // Keys are told apart to the letter.
    let upper = keyed(&world.client, "/intents", "K", OTHER_INTENT).await;
    assert_eq!((upper.status, is_replay(&upper)), (201, false));
}

#[tokio::test]
async fn of_many_at_once_one_writes_and_all_get_its_answer() {
    let world = World::new("idempotency_race").await;
    let race = async |path: String, body: &'static str| -> Vec<Answer> {
        let mut requests = JoinSet::new();
        for _ in 0..32 {
            let (client, path) = (world.client.clone(), path.clone());
            requests.spawn(async move {
                // On a machine that is very busy some are told to come again, and that is what the key is for.
                for _ in 0..20 {
                    let answer = keyed(&client, &path, "race", body).await;
                    if answer.status != 503 {
                        return answer;
                    }
                }
                panic!("unavailable all the time");
            });
        }
        requests.join_all().await
    };
    let intents = race("/intents".into(), OTHER_INTENT).await;
    assert_eq!(rows(&world).await, (1, 0, 1, 0));
    let path = format!("/intents/{}/run", text(&intents[0], "intentId"));
    let runs = race(path, "{}").await;
    assert_eq!(rows(&world).await, (1, 1, 2, 0));
    for (answers, status) in [(&intents, 201), (&runs, 202)] {
        let firsts = answers.iter().filter(|answer| !is_replay(answer)).count();
        assert!(firsts <= 1, "{firsts} of them were first");
        for answer in answers {
            assert_eq!((answer.status, &answer.body), (status, &answers[0].body));
        }
    }
    let workflows: i64 = sqlx::query_scalar("SELECT count(*) FROM dbos.workflow_status")
        .fetch_one(&world.system)
        .await
        .unwrap();
    assert!(workflows <= 1, "{workflows} workflows of one run");
    world.ended(&text(&runs[0], "runId")).await;
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_ascii_characters_and_free_until_a_request_is_accepted() {
    let world = World::new("idempotency_forms").await;
    let longest = "k".repeat(255);
    for key in [
        "~",
        "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}",
        &longest,
        &format!("\"{longest}\"x")[..257],
    ] {
        let first = keyed(&world.client, "/intents", key, DEMO_INTENT).await;
        assert_eq!(first.status, 201, "{key}: {}", first.text());
    }
    let (intents, _, keys, _) = rows(&world).await;
    assert_eq!((intents, keys), (3, 3), "the quoted key is the bare one");

    let body = DEMO_INTENT.as_bytes();
    let length = format!("Content-Length: {}", body.len());
    for lines in [
        &["Idempotency-Key:"][..],
        &["Idempotency-Key: \"\""],
        &[&format!("Idempotency-Key: {}", "k".repeat(256))],
        &["Idempotency-Key: a b"],
        &["Idempotency-Key: a\tb"],
        &["Idempotency-Key: é"],
        &["Idempotency-Key: a", "Idempotency-Key: a"],
    ] {
        let mut raw = Raw::connect(world.service.port).await;
        let headers = [lines, &[length.as_str()]].concat();
        raw.send(request("POST", "/intents", &headers, body)).await;
        assert_eq!(
            raw.answer().await.shown(),
            r#"400 {"error":"Idempotency-Key must be one header of 1 to 255 visible ASCII characters"}"#,
            "{lines:?}"
        );
    }
    assert_eq!(rows(&world).await.0, 3);

    // A request that is refused leaves its key free.
    let key = [("idempotency-key", "free")];
    for body in [
        "",
        "{bad",
        "{}",
        r#"{"goal":"\u0000","inputs":{},"constraints":{}}"#,
    ] {
        refusal(&world, "POST", "/intents", &key, body).await;
    }
    let missing = format!("/intents/{NO_INTENT}/run");
    refusal(&world, "POST", &missing, &key, "").await;
    let created = keyed(&world.client, "/intents", "free", DEMO_INTENT).await;
    assert_eq!((created.status, is_replay(&created)), (201, false));
    let path = format!("/intents/{}/run", text(&created, "intentId"));
    refusal(&world, "POST", &path, &key, r#"{"unknownField":"x"}"#).await;
    let accepted = keyed(&world.client, &path, "free", "").await;
    assert_eq!((accepted.status, is_replay(&accepted)), (202, false));
}
