//! Plans from a model, through the whole service: the model is scripted, its HTTP is real.

use crate::model::{Reply, Script, ScriptedModel};
use kodo_dev::harness::ServiceOptions;
use serde_json::{Value, json};

use crate::run_view::check;
use crate::scratch::Scratch;
use crate::support::{OTHER_INTENT, World, until};

/// A key that must be seen nowhere.
const KEY: &str = "sk-canary-0123456789abcdef";

pub fn plan(prompt: &str) -> Value {
    json!({
        "prompt": prompt,
        "toolCalls": [{"name": "exec", "args": {"argv": ["true"], "limits": {"processes": 1}}}],
        "responses": [{"role": "assistant", "text": "ok"}],
        "diffs": [],
    })
}

async fn model() -> ScriptedModel {
    let script = Script::default().otherwise(plan("scripted"));
    ScriptedModel::start(0, script).await.unwrap()
}

pub fn asking(
    model: &ScriptedModel,
    mode: &str,
) -> impl FnOnce(ServiceOptions) -> ServiceOptions + use<> {
    let (mode, url) = (mode.to_owned(), model.url());
    move |options| {
        options
            .env("OC_MODE", mode)
            .env("OC_BASE_URL", url)
            .env("OC_MODEL", "scripted")
            .env("OC_API_KEY", KEY)
            .env("OC_DEADLINE_MS", 20_000)
    }
}

async fn run(world: &World) -> Value {
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    check(&view);
    view
}

/// The reason of a run that failed.
pub fn reason(view: &Value) -> (&str, &str) {
    assert_eq!(view["status"], "failed", "{view:#}");
    let artifacts = view["artifacts"].as_array().unwrap();
    let error = artifacts.iter().find(|it| it["kind"] == "error").unwrap();
    let field = |name: &str| error["inline"][name].as_str().unwrap();
    assert_eq!(error["inline"]["stepId"], "plan");
    (field("code"), field("message"))
}

/// The view without what differs between two runs of the same intent.
fn normalised(view: &Value) -> Value {
    let run = view["runId"].as_str().unwrap();
    let text = view.to_string().replace(run, "run");
    let mut view: Value = serde_json::from_str(&text).unwrap();
    for step in view["steps"].as_array_mut().unwrap() {
        step["startedAt"] = Value::Null;
        step["finishedAt"] = Value::Null;
    }
    view
}

#[tokio::test]
async fn a_live_run_does_what_the_model_planned_and_says_who_planned_it() {
    let model = model().await;
    let world = World::with("live_plan", asking(&model, "live")).await;
    // No object with the members of a plan; then one whose call could not be carried out.
    model.next(Reply::Json(json!({"steps": []})));
    let mut unfit = plan("unfit");
    unfit["toolCalls"][0]["args"] = json!({"command": "make test"});
    model.next(Reply::Json(unfit));
    let view = run(&world).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let planned = &view["steps"][0]["output"];
    assert_eq!(planned["plan"], plan("scripted"));
    assert_eq!(
        planned["source"],
        json!({"kind": "live", "provider": "openai", "model": "scripted", "form": "json_schema", "repairs": 2})
    );
    assert_eq!(view["steps"][1]["phase"], "executing");
    let seen = model.seen();
    assert_eq!(seen.len(), 3);
    let shown = seen[2].body["messages"].to_string();
    let fault = "data/toolCalls/0/args cannot be carried out: unknown field `command`";
    assert!(shown.contains(fault), "{shown}");
    let key = format!("{}/plan/1/json_schema", view["runId"].as_str().unwrap());
    assert_eq!(seen[0].headers["idempotency-key"], key);
}

#[tokio::test]
async fn a_live_run_that_gets_no_plan_fails_with_the_reason_and_runs_nothing() {
    let model = model().await;
    let world = World::with("live_failures", asking(&model, "live")).await;
    let mut refused = plan("refused");
    refused["toolCalls"] =
        json!([{"name": "exec", "args": {"argv": ["true"]}}, {"name": "rm", "args": {}}]);
    let wrong = Reply::Json(json!({"steps": []}));
    for (replies, code, says) in [
        (
            vec![wrong; 3],
            "plan_invalid",
            "required property 'toolCalls'",
        ),
        (
            vec![Reply::Json(refused)],
            "plan_refused",
            r#"not allowed: "rm""#,
        ),
        (
            vec![Reply::Refusal(format!("no {KEY}"))],
            "planner_declined",
            "declined: no [redacted]",
        ),
        (
            vec![Reply::Ends("length")],
            "planner_truncated",
            "OC_MAX_TOKENS",
        ),
        (
            vec![Reply::error(401, KEY)],
            "planner_unauthorized",
            "OC_API_KEY",
        ),
        (vec![Reply::Endless], "planner_answer_too_large", "bytes"),
    ] {
        let before = model.seen().len();
        let asked = replies.len();
        for reply in replies {
            model.next(reply);
        }
        let view = run(&world).await;
        let (got, message) = reason(&view);
        assert_eq!(got, code, "{message}");
        assert!(message.contains(says), "{says} in {message}");
        assert_eq!(view["steps"].as_array().unwrap().len(), 0, "{view:#}");
        // The step is not tried again: whatever could help was tried within it.
        assert_eq!(model.seen().len(), before + asked, "{code}");
        assert!(!view.to_string().contains(KEY));
    }
    let log = world.service.log();
    assert!(!log.contains(KEY), "{log}");
}

#[tokio::test]
async fn a_connector_that_is_not_allowed_ends_the_run_before_the_model_is_asked() {
    let model = model().await;
    let world = World::with("live_connector", asking(&model, "live")).await;
    let body = r#"{"goal":"g","inputs":{},"constraints":{},"connectors":["mail"]}"#;
    let intent = world.intent(body).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    let (code, message) = reason(&view);
    assert_eq!(code, "plan_refused");
    assert!(
        message.contains(r#""mail""#) && message.contains("OC_ALLOWED_CONNECTORS"),
        "{message}"
    );
    assert!(model.seen().is_empty());
}

#[tokio::test]
async fn what_was_recorded_is_replayed_with_the_model_gone() {
    let model = model().await;
    let scratch = Scratch::new("live_record");
    let dir = scratch.path().display().to_string();
    let mut world = World::with("live_record", |options| {
        asking(&model, "record")(options).env("OC_FIXTURES_DIR", &dir)
    })
    .await;
    let recorded = run(&world).await;
    assert_eq!(recorded["status"], "succeeded");
    assert_eq!(recorded["steps"][0]["output"]["source"]["kind"], "fixture");
    let files: Vec<_> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(!text.contains(KEY) && !text.contains(&dir), "{text}");
    drop(model);
    let replay = world
        .options
        .clone()
        .env("OC_MODE", "replay")
        .env("OC_BASE_URL", "");
    world.restart(&replay).await;
    let replayed = run(&world).await;
    assert_eq!(normalised(&replayed), normalised(&recorded));

    // A failure as well.
    let model = self::model().await;
    model.next(Reply::Refusal("no".into()));
    let record = world.options.clone().env("OC_BASE_URL", model.url());
    world.restart(&record).await;
    let recorded = run(&world).await;
    assert_eq!(reason(&recorded).0, "planner_declined");
    drop(model);
    world.restart(&replay).await;
    let replayed = run(&world).await;
    assert_eq!(normalised(&replayed), normalised(&recorded));
}

#[tokio::test]
async fn killed_between_the_models_answer_and_its_record_a_run_has_one_plan() {
    let model = model().await;
    let mut world = World::with("live_killed", asking(&model, "live")).await;
    let intent = world.intent(OTHER_INTENT).await;
    // Nothing can be recorded as long as somebody else holds the table.
    let mut holder = world.app.begin().await.unwrap();
    sqlx::query("LOCK TABLE app.run_steps IN SHARE MODE")
        .execute(&mut *holder)
        .await
        .unwrap();
    model.next(Reply::Json(plan("first")));
    model.next(Reply::Json(plan("second")));
    let run = world.run(&intent).await;
    until("the record to wait for the table", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks WHERE relation = 'app.run_steps'::regclass AND NOT granted",
        )
        .fetch_one(&world.app)
        .await
        .unwrap();
        waiting > 0
    })
    .await;
    world.service.kill9().await.unwrap();
    holder.rollback().await.unwrap();
    let options = world.options.clone();
    world.restart(&options).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    // The statement that waited dies with its connection, or was through before: either way there is one plan, and
    // the steps, the artifacts and the row agree on which.
    let planned = world
        .count("SELECT count(*) FROM app.run_steps WHERE step_id = 'plan'")
        .await;
    assert_eq!(planned, 1);
    let kept = view["steps"][0]["output"]["plan"].clone();
    let plans: Vec<&Value> = view["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["kind"] == "plan")
        .map(|it| &it["inline"])
        .collect();
    assert_eq!(plans, [&kept]);
    // Both calls carry the same idempotency key.
    let keys: Vec<_> = model
        .seen()
        .iter()
        .map(|seen| seen.headers["idempotency-key"].clone())
        .collect();
    assert!(
        !keys.is_empty() && keys.iter().all(|key| *key == keys[0]),
        "{keys:?}"
    );
}
