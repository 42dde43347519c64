//! The answers of the API: each status and body that the contract has, with every header.

use hyper::body::Bytes;

use crate::answers_down;
use crate::api::{NO_INTENT, NO_RUN};
use crate::exchange::{Came, Exchanges, ask};
use crate::fail_closed::everything;
use crate::goldens::Shown;
use crate::raw::{Raw, request};
use crate::support::{DEMO_INTENT, World, text};

const MIB: usize = 1 << 20;

/// The goldens of all answers.
pub async fn all() -> Vec<Shown> {
    // One service after the other: what is waited for too long is 503, and no golden.
    let mut noted = given().await;
    noted = noted.and(refused().await);
    noted = noted.and(guarded().await);
    noted = noted.and(answers_down::broken().await);
    vec![noted.and(answers_down::down().await).shown()]
}

/// Requests that succeed.
async fn given() -> Exchanges {
    let world = World::with("answers_given", |options| options.env("WF_SLEEP_MS", 0)).await;
    let client = &world.client;
    let mut noted = Exchanges::default();
    noted.note(client, "200-healthz", ask("GET /healthz")).await;
    noted.note(client, "200-readyz", ask("GET /readyz")).await;
    let new = ask("POST /intents").body(DEMO_INTENT);
    noted.note(client, "201-intent", new.clone()).await;
    let keyed = new.header("Idempotency-Key", "first");
    noted.note(client, "201-intent-first", keyed.clone()).await;
    noted.note(client, "201-intent-replayed", keyed).await;

    let intent = world.intent(DEMO_INTENT).await;
    let run = || ask(&format!("POST /intents/{intent}/run"));
    // A body of no bytes, and what it stands for.
    let plain = vec![run(), run().body("{}"), run().body(r#"{"traceId":null}"#)];
    noted.note_alike(client, "202-run", plain).await;
    let keyed = run().body(r#"{"traceId":"po-demo"}"#);
    let keyed = keyed.header("Idempotency-Key", "\"first\"");
    noted.note(client, "202-run-first", keyed.clone()).await;
    noted.note(client, "202-run-replayed", keyed).await;
    let other = run().body(r#"{"traceId":"other"}"#);
    let other = other.header("Idempotency-Key", "first");
    noted
        .note(client, "422-idempotency-key-reused", other)
        .await;

    let demo = ask("POST /crashdemo?wf=demo-1");
    noted
        .note_alike(client, "202-crashdemo", vec![demo.clone(), demo])
        .await;
    noted
        .note(client, "200-marks", ask("GET /marks?wf=nobody"))
        .await;
    let taken = world.run(&intent).await;
    world.ended(&taken).await;
    let taken = ask(&format!("POST /crashdemo?wf={taken}"));
    noted.note(client, "409-workflow-id-taken", taken).await;
    noted
}

/// Requests that are refused by what they say. None of them changes a row, in either database.
async fn refused() -> Exchanges {
    let world = World::apart("answers_refused", |options| options).await;
    let intent = world.intent(DEMO_INTENT).await;
    let before = everything(&world).await;
    let noted = malformed(&world, &intent).await;
    let noted = noted.and(invalid(&world, &intent).await);
    let noted = noted.and(misplaced(&world, &intent).await);
    let noted = noted.and(limited(&world, &intent).await);
    assert_eq!(everything(&world).await, before, "a refused request wrote");
    noted
}

/// What is no JSON document.
async fn malformed(world: &World, intent: &str) -> Exchanges {
    let mut noted = Exchanges::default();
    let deep = "[".repeat(129) + &"]".repeat(129);
    let bodies: [&[u8]; 8] = [
        b"{bad",
        b"{} x",
        b"{}{}",
        b"\xef\xbb\xbf{}",
        b"{\"goal\":\"\xff\"}",
        b"{\"goal\":NaN}",
        br#"{"goal":"\ud800"}"#,
        deep.as_bytes(),
    ];
    let mut asks = vec![ask("POST /intents")];
    for body in bodies {
        asks.push(ask("POST /intents").body(body));
    }
    for body in bodies {
        asks.push(ask(&format!("POST /intents/{intent}/run")).body(body));
    }
    noted
        .note_alike(&world.client, "400-invalid-json", asks)
        .await;

    // A body that ends before its length, byte by byte: no decent client sends that.
    let half = ask("POST /intents")
        .header("Content-Length", "100")
        .body("{");
    let began = std::time::SystemTime::now();
    let mut raw = Raw::connect(world.service.port).await;
    raw.send(request("POST", "/intents", &["Content-Length: 100"], b"{"))
        .await;
    raw.half_close().await;
    let answer = raw.answer().await;
    let came = Came {
        status: answer.status,
        headers: answer.headers,
        body: answer.body,
    };
    noted.note_answers("400-invalid-request-body", vec![(half, began, came)]);
    noted
}

/// What the schemas refuse, and what Postgres could not store.
async fn invalid(world: &World, intent: &str) -> Exchanges {
    let mut noted = Exchanges::default();
    for (name, body) in [
        ("goal-missing", r#"{"inputs":{},"constraints":{}}"#),
        ("goal-empty", r#"{"goal":"","inputs":{},"constraints":{}}"#),
        (
            "types",
            r#"{"goal":null,"inputs":[],"constraints":"x","connectors":{}}"#,
        ),
        (
            "connectors",
            r#"{"goal":"g","inputs":{},"constraints":{},"connectors":["ok",1,null]}"#,
        ),
        (
            "order-of-violations",
            r#"{"z":1,"connectors":[true],"10":2,"goal":"","a/b":3}"#,
        ),
        ("no-object", "[]"),
        ("nul", r#"{"goal":"a\u0000b","inputs":{},"constraints":{}}"#),
        (
            "nul-in-key",
            r#"{"goal":"g","inputs":{"a/b":{"k\u0000":1}},"constraints":{}}"#,
        ),
        (
            "number-out-of-range",
            r#"{"goal":"g","inputs":{"n":1e131072},"constraints":{}}"#,
        ),
    ] {
        let sent = ask("POST /intents").body(body);
        noted
            .note(&world.client, &format!("400-intent-{name}"), sent)
            .await;
    }
    for (name, body) in [
        ("unknown-field", r#"{"unknownField":"x"}"#),
        ("types", r#"{"traceId":7,"traceid":"x"}"#),
        ("no-object", "null"),
        ("nul", r#"{"traceId":"\u0000"}"#),
    ] {
        let sent = ask(&format!("POST /intents/{intent}/run")).body(body);
        noted
            .note(&world.client, &format!("400-run-request-{name}"), sent)
            .await;
    }
    noted
}

/// What is not there, and what is not there under that method.
async fn misplaced(world: &World, intent: &str) -> Exchanges {
    let client = &world.client;
    let mut noted = Exchanges::default();
    let nowhere = ["GET /", "POST /nothing", "DELETE /runs", "GET /healthz/"]
        .map(ask)
        .to_vec();
    noted.note_alike(client, "404-not-found", nowhere).await;
    // Looked up before the body is judged.
    let no_intent = |body: &str| ask(&format!("POST /intents/{NO_INTENT}/run")).body(body);
    let asks = ["", "{bad", r#"{"unknownField":"x"}"#]
        .map(no_intent)
        .to_vec();
    noted.note_alike(client, "404-intent-not-found", asks).await;
    let asks = [
        &format!("GET /runs/{NO_RUN}"),
        "GET /runs/x",
        "GET /runs/%00",
    ]
    .map(ask)
    .to_vec();
    noted.note_alike(client, "404-run-not-found", asks).await;
    for (name, asks) in [
        ("healthz", ["POST /healthz", "DELETE /healthz"]),
        ("readyz", ["POST /readyz", "PUT /readyz"]),
        ("intents", ["GET /intents", "OPTIONS /intents"]),
        (
            "run",
            [
                &format!("GET /intents/{intent}/run"),
                "PATCH /intents/x/run",
            ],
        ),
        ("runs", ["POST /runs/x", "DELETE /runs/x"]),
        ("crashdemo", ["GET /crashdemo?wf=x", "PUT /crashdemo?wf=x"]),
        ("marks", ["POST /marks?wf=x", "DELETE /marks?wf=x"]),
    ] {
        let asks = asks.map(ask).to_vec();
        noted.note_alike(client, &format!("405-{name}"), asks).await;
    }
    noted
}

/// What is too long, blank, or no key.
async fn limited(world: &World, intent: &str) -> Exchanges {
    let client = &world.client;
    let mut noted = Exchanges::default();
    let large = Bytes::from(vec![b' '; MIB + 1]);
    let run = format!("POST /intents/{intent}/run");
    let asks = ["POST /intents", &run, "POST /crashdemo?wf=x"];
    let asks = asks.map(|line| ask(line).body(large.clone())).to_vec();
    noted
        .note_alike(client, "413-payload-too-large", asks)
        .await;

    let long = "x".repeat(257);
    let asks = [
        format!("GET /runs/{long}"),
        format!("POST /intents/{long}/run"),
    ];
    let asks = asks.iter().map(|line| ask(line)).collect();
    noted.note_alike(client, "400-id-too-long", asks).await;
    let both = |query: &str| {
        vec![
            ask(&format!("POST /crashdemo{query}")),
            ask(&format!("GET /marks{query}")),
        ]
    };
    let wf = both(&format!("?wf={long}"));
    noted.note_alike(client, "400-wf-too-long", wf).await;
    let wf = ["", "?wf=", "?wf=%20", "?other=x"].map(both).concat();
    noted.note_alike(client, "400-wf-required", wf).await;
    let wf = ["?wf=%00", "?wf=%ff"].map(both).concat();
    noted.note_alike(client, "400-wf-unreadable", wf).await;

    let mut asks = Vec::new();
    for key in ["", "\"\"", "a b", &"k".repeat(256)] {
        for line in ["POST /intents", &run] {
            let sent = ask(line).header("Idempotency-Key", key);
            asks.push(sent.body(DEMO_INTENT));
        }
    }
    noted.note_alike(client, "400-idempotency-key", asks).await;
    noted
}

/// Requests that are refused by who sends them.
async fn guarded() -> Exchanges {
    let world = World::with("answers_guarded", |options| {
        options.env("API_TOKEN", "right")
    })
    .await;
    let before = everything(&world).await;
    let mut noted = Exchanges::default();
    let mut asks = Vec::new();
    for line in [
        "POST /intents",
        "POST /intents/x/run",
        "GET /runs/x",
        "POST /crashdemo?wf=x",
        "GET /marks?wf=x",
        "GET /nothing",
    ] {
        asks.push(ask(line));
        asks.push(ask(line).header("Authorization", "Bearer wrong"));
    }
    noted
        .note_alike(&world.client, "401-unauthorized", asks)
        .await;

    let right = |line| ask(line).header("Authorization", "Bearer right");
    let asks = vec![
        right("POST /intents").header("Origin", "https://elsewhere.example"),
        right("GET /runs/x").header("Origin", "null"),
        right("POST /crashdemo?wf=x").header("Sec-Fetch-Site", "cross-site"),
        // Before anything is said about the token.
        ask("GET /healthz").header("Origin", "https://elsewhere.example"),
    ];
    noted
        .note_alike(&world.client, "403-forbidden-origin", asks)
        .await;
    assert_eq!(everything(&world).await, before, "a refused request wrote");

    // And that the token is why.
    let created = right("POST /intents")
        .body(DEMO_INTENT)
        .send(&world.client)
        .await;
    assert!(text(&created, "intentId").starts_with("it_"));
    noted
}
