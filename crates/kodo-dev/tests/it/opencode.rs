//! The planner that asks through OpenCode, against something that behaves like one.

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::model::{Reply, Script, ScriptedModel};
use futures_util::future::join_all;
use kodo_contract::{Intent, decode, encode};
use kodo_planner::{
    Endpoint, OpenCodeConfig, OpenCodePlace, OpenCodePlanner, PlanError, PlanRequest, Planned,
    Planner, Policy, Secret, VersionRule,
};
use serde_json::{Value, json};

use fake::{Fake, Launcher};

/// A key that must be seen nowhere but in the header of what goes to the model.
const KEY: &str = "sk-canary-0123456789abcdef";

fn plan_json() -> Value {
    json!({
        "prompt": "p",
        "toolCalls": [{"name": "exec", "args": {"argv": ["ls"]}}],
        "responses": [{"role": "assistant", "text": "t"}],
        "diffs": [],
    })
}

async fn model() -> ScriptedModel {
    let script = Script::default().otherwise(plan_json());
    ScriptedModel::start(0, script).await.unwrap()
}

fn config(fake: &Arc<Fake>, model: &ScriptedModel, deadline: Duration) -> OpenCodeConfig {
    OpenCodeConfig {
        place: OpenCodePlace::Started {
            launcher: Arc::new(Launcher(Arc::clone(fake))),
            endpoint: Endpoint::parse(&model.url(), false).unwrap(),
            secret: Some(Secret::new(KEY)),
            first_pause: Duration::from_millis(5),
        },
        version: VersionRule::Exactly(kodo_planner::TESTED_VERSION.to_owned()),
        model: "m".to_owned(),
        deadline,
        max_tokens: 1000,
        policy: Policy {
            allowed_tools: vec!["exec".to_owned()],
            allowed_connectors: Vec::new(),
            max_steps: 4,
            max_bytes: 10_000,
            tools: std::sync::Arc::new(kodo_planner::AnyArguments),
        },
    }
}

const PATIENT: Duration = Duration::from_secs(20);

async fn ask(planner: &OpenCodePlanner) -> Result<Planned, PlanError> {
    let intent: Intent = decode(&json!({"goal": "g", "inputs": {}, "constraints": {}})).unwrap();
    let request = PlanRequest {
        intent: &intent,
        seed: 7,
        idempotency_key: "run_1/plan",
    };
    planner.plan(&request).await
}

fn failed(answer: Result<Planned, PlanError>) -> (&'static str, String) {
    let error = answer.expect_err("there should be no plan");
    (error.code().as_str(), error.to_string())
}

async fn until(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !look() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_plan_takes_one_session_that_is_deleted_and_the_key_never_gets_there() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    planner.start().await.unwrap();
    assert!(model.seen().is_empty(), "a start asks no model");
    let before = fake.paths().len();
    let planned = ask(&planner).await.unwrap();
    assert_eq!(encode(&planned.plan).unwrap(), plan_json());
    let paths = fake.paths().split_off(before);
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert_eq!(paths[0], "POST /session");
    assert!(paths[1].starts_with("POST /session/ses_") && paths[1].ends_with("/message"));
    assert!(paths[2].starts_with("DELETE /session/ses_"), "{paths:?}");
    assert!(
        fake.asked
            .lock()
            .unwrap()
            .iter()
            .all(|(_, _, authorized)| *authorized)
    );
    assert!(!fake.given.lock().unwrap().contains(KEY));
    let seen = model.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        (&seen[0].body["model"], &seen[0].body["seed"]),
        (&json!("m"), &json!(7))
    );
}

#[tokio::test]
async fn nothing_passes_the_model_proxy_but_a_plan_that_is_being_made() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    ask(&planner).await.unwrap();
    let over = fake
        .paths()
        .into_iter()
        .rev()
        .find_map(|path| Some(path.strip_prefix("DELETE /session/")?.to_owned()));
    let (seen, token) = (model.seen().len(), fake.token());
    let path = "/v1/chat/completions";
    for (path, token, session, expected) in [
        (path, "guessed", None, 401),
        ("/v1/models", token.as_str(), None, 404),
        (path, &token, None, 403),
        (path, &token, Some("ses_unknown"), 403),
        (path, &token, over.as_deref(), 403),
    ] {
        let (status, text) = fake.to_model_proxy(path, token, session).await;
        assert_eq!(status, expected, "{text}");
    }
    assert_eq!(model.seen().len(), seen, "the model heard nothing of it");
}

#[tokio::test]
async fn the_deadline_aborts_the_session_and_closes_the_connection_to_the_model() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, Duration::from_millis(500)));
    planner.start().await.unwrap();
    model.next(Reply::Hang);
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_deadline");
    assert!(text.contains("500 ms"), "{text}");
    let paths = fake.paths();
    let [.., abort, delete] = paths.as_slice() else {
        panic!("{paths:?}");
    };
    assert!(
        abort.ends_with("/abort") && delete.starts_with("DELETE"),
        "{paths:?}"
    );
    until("the end of the connection", || model.abandoned() == 1).await;
}

#[tokio::test]
async fn one_that_does_not_abort_is_given_up_and_the_model_let_go_all_the_same() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, Duration::from_millis(500)));
    planner.start().await.unwrap();
    fake.deaf.store(true, Ordering::SeqCst);
    model.next(Reply::Hang);
    assert_eq!(failed(ask(&planner).await).0, "planner_deadline");
    until("the end of the connection", || model.abandoned() == 1).await;
    fake.deaf.store(false, Ordering::SeqCst);
    ask(&planner).await.unwrap();
    assert_eq!(fake.starts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn dropping_the_question_aborts_it_too() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    planner.start().await.unwrap();
    model.next(Reply::Hang);
    tokio::select! {
        _ = ask(&planner) => panic!("a hang gives no answer"),
        () = until("the request", || model.seen().len() == 1) => {}
    }
    until("the end of the connection", || model.abandoned() == 1).await;
    until("the abort", || {
        fake.paths().iter().any(|path| path.ends_with("/abort"))
    })
    .await;
    let deleted = || fake.paths().last().unwrap().starts_with("DELETE");
    until("the end of the session", deleted).await;
}

#[tokio::test]
async fn what_the_model_proxy_knows_is_why_there_is_no_plan() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    for (replies, expected) in [
        (vec![Reply::error(401, "no")], "planner_unauthorized"),
        (vec![Reply::error(404, "no")], "planner_rejected"),
        (vec![Reply::Endless], "planner_answer_too_large"),
        (vec![Reply::Refusal(KEY.to_owned())], "planner_declined"),
        (vec![Reply::Ends("length")], "planner_truncated"),
        (vec![Reply::Ends("content_filter")], "planner_filtered"),
    ] {
        let (before, count) = (model.seen().len(), replies.len());
        for reply in replies {
            model.next(reply);
        }
        let (code, text) = failed(ask(&planner).await);
        assert_eq!(code, expected, "{text}");
        assert!(!text.contains(KEY), "{text}");
        assert_eq!(model.seen().len(), before + count, "{expected}");
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_out_with_the_same_key() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    // A stream that says that it is over, and not why: OpenCode would ask for it without end.
    let open = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n";
    for replies in [
        vec![Reply::error(500, "no"); 3],
        vec![Reply::error(429, "no"); 3],
        vec![Reply::Half(plan_json())],
        vec![Reply::Raw("text/event-stream", open.into())],
        vec![Reply::Raw("text/html", "<html>".into())],
    ] {
        let (before, count) = (model.seen().len(), replies.len());
        for reply in replies {
            model.next(reply);
        }
        let planned = ask(&planner).await.unwrap();
        assert_eq!(encode(&planned.plan).unwrap(), plan_json());
        let seen = model.seen().split_off(before);
        let keys: Vec<_> = seen
            .iter()
            .map(|it| &it.headers["idempotency-key"])
            .collect();
        assert_eq!(keys, vec!["run_1/plan/opencode/1"; count + 1]);
    }
    assert_eq!(fake.starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_model_that_stays_away_is_told_of_at_the_deadline() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, Duration::from_millis(500)));
    planner.start().await.unwrap();
    for _ in 0..100 {
        model.next(Reply::error(503, "loading model"));
    }
    let (_, text) = failed(ask(&planner).await);
    assert!(
        text.contains("loading model") && text.contains("OC_DEADLINE_MS"),
        "{text}"
    );
}

#[tokio::test]
async fn the_time_of_a_plan_that_waits_for_its_turn_has_not_begun() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, Duration::from_secs(2)));
    planner.start().await.unwrap();
    // As many as are made at once, each for as long as a plan may take.
    for _ in 0..8 {
        model.next(Reply::Hang);
    }
    let hanging = join_all((0..8).map(|_| ask(&planner)));
    let waiting = async {
        until("the hanging ones", || model.seen().len() == 8).await;
        ask(&planner).await
    };
    let (hanging, waiting) = tokio::join!(hanging, waiting);
    for planned in hanging {
        assert_eq!(failed(planned).0, "planner_deadline");
    }
    waiting.unwrap();
}

#[tokio::test]
async fn a_server_that_knows_other_words_is_asked_in_those() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    let unknown = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
    model.next(Reply::error(400, unknown));
    model.next(Reply::error(400, "temperature is fixed"));
    ask(&planner).await.unwrap();
    let body = &model.seen()[2].body;
    assert_eq!(body["max_completion_tokens"], 1000);
    assert!(body.get("temperature").is_none() && body.get("max_tokens").is_none());
    // And remembered.
    ask(&planner).await.unwrap();
    assert_eq!(model.seen().len(), 4);
}

#[tokio::test]
async fn a_wrong_plan_is_repaired_and_one_with_the_key_in_it_refused() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    model.next(Reply::Json(json!({"steps": []})));
    let planned = ask(&planner).await.unwrap();
    let source = serde_json::to_value(&planned.source).unwrap();
    assert_eq!(
        (&source["provider"], &source["repairs"]),
        (&json!("opencode"), &json!(1))
    );
    let mut plan = plan_json();
    plan["prompt"] = KEY.into();
    model.next(Reply::Json(plan));
    assert_eq!(failed(ask(&planner).await).0, "plan_refused");
}

#[tokio::test]
async fn one_that_has_the_model_asked_for_ever_is_stopped() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    planner.start().await.unwrap();
    fake.insists.store(100, Ordering::SeqCst);
    let (code, text) = failed(ask(&planner).await);
    assert_eq!(code, "planner_answer_invalid");
    assert!(text.contains("12 times"), "{text}");
    assert_eq!(model.seen().len(), 12);
}

#[tokio::test]
async fn another_version_or_an_agent_that_may_do_more_is_no_start() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    *fake.version.lock().unwrap() = "9.9.9".to_owned();
    let text = planner.start().await.unwrap_err().to_string();
    assert!(
        text.contains("9.9.9") && text.contains("OC_OPENCODE_VERSION"),
        "{text}"
    );
    let any = OpenCodeConfig {
        version: VersionRule::Any,
        ..config(&fake, &model, PATIENT)
    };
    OpenCodePlanner::new(any).start().await.unwrap();
    *fake.version.lock().unwrap() = kodo_planner::TESTED_VERSION.to_owned();
    let bash = json!({"permission": "bash", "pattern": "git *", "action": "ask"});
    fake.rules.lock().unwrap().push(bash);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    let text = planner.start().await.unwrap_err().to_string();
    assert!(text.contains("may use bash"), "{text}");
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again_within_the_deadline_and_then_told() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    fake.broken_starts.store(2, Ordering::SeqCst);
    let began = Instant::now();
    ask(&planner).await.unwrap();
    assert_eq!(fake.starts.load(Ordering::SeqCst), 3);
    // Half a second and one, at the least: a machine without room is not asked without pause.
    assert!(began.elapsed() >= Duration::from_millis(1500));
    let hasty = OpenCodePlanner::new(config(&fake, &model, Duration::from_millis(300)));
    fake.broken_starts.store(100, Ordering::SeqCst);
    let (_, text) = failed(ask(&hasty).await);
    assert!(text.contains("no room for it"), "{text}");
}

#[tokio::test]
async fn one_that_has_ended_is_started_anew_by_the_next_plan() {
    let (fake, model) = (Fake::new(), model().await);
    let planner = OpenCodePlanner::new(config(&fake, &model, PATIENT));
    ask(&planner).await.unwrap();
    fake.dies.notify_waiters();
    // The one that watches it has to have heard.
    tokio::task::yield_now().await;
    ask(&planner).await.unwrap();
    assert_eq!(fake.starts.load(Ordering::SeqCst), 2);
}
