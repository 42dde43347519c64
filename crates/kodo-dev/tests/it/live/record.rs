//! Recording, and replaying without the model.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Reply, ScriptedModel};
use kodo_planner::{
    Failure, Fixture, LiveConfig, LivePlanner, PlanError, PlanRequest, PlanSource, Planned,
    Planner, RecordPlanner, ReplayPlanner, fixture_key,
};
use serde_json::json;
use tempfile::TempDir;

use super::support::{KEY, config, intent, model, plan_json};

async fn plan(planner: &dyn Planner) -> Result<Planned, PlanError> {
    let intent = intent();
    let request = PlanRequest {
        intent: &intent,
        seed: 7,
        idempotency_key: "run_1/plan",
    };
    planner.plan(&request).await
}

fn recorder(model: &ScriptedModel, dir: &TempDir) -> RecordPlanner {
    RecordPlanner::new(
        Arc::new(LivePlanner::new(config(&model.url()))),
        dir.path().to_owned(),
    )
}

/// The one fixture in the folder, which holds neither the key nor where anything was.
fn recorded(model: &ScriptedModel, dir: &TempDir) -> String {
    let key = fixture_key(&intent(), 7);
    let files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files, [dir.path().join(format!("{key}.json"))]);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    for secret in [
        KEY,
        &model.port().to_string(),
        "127.0.0.1",
        dir.path().to_str().unwrap(),
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    text
}

#[tokio::test]
async fn what_was_recorded_is_replayed_when_the_model_is_gone() {
    let dir = TempDir::new().unwrap();
    let model = model().await;
    let answered = plan(&recorder(&model, &dir)).await.unwrap();
    let key = fixture_key(&intent(), 7);
    assert_eq!(answered.source, PlanSource::Fixture { key });
    recorded(&model, &dir);
    drop(model);
    let replayed = plan(&ReplayPlanner::new(Some(dir.path().to_owned()))).await;
    assert_eq!(replayed.unwrap(), answered);
}

#[tokio::test]
async fn a_recording_of_the_same_answer_is_the_same_to_the_byte() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (model, elsewhere) = (model().await, model().await);
    plan(&recorder(&model, &one)).await.unwrap();
    plan(&recorder(&elsewhere, &other)).await.unwrap();
    assert_eq!(recorded(&model, &one), recorded(&elsewhere, &other));
}

#[tokio::test]
async fn recording_always_asks_and_keeps_the_newest_answer() {
    let dir = TempDir::new().unwrap();
    let model = model().await;
    let recorder = recorder(&model, &dir);
    plan(&recorder).await.unwrap();
    let mut other = plan_json();
    other["prompt"] = "another one".into();
    model.next(Reply::Json(other));
    plan(&recorder).await.unwrap();
    assert_eq!(model.seen().len(), 2);
    assert!(recorded(&model, &dir).contains("another one"));
}

#[tokio::test]
async fn a_failure_is_recorded_and_replayed_as_the_same_failure() {
    let model = model().await;
    let mut refused = plan_json();
    refused["toolCalls"] = json!([{"name": "rm", "args": {}}]);
    for reply in [
        Reply::Refusal(format!("no, {KEY}")),
        Reply::Json(refused),
        Reply::error(401, "no"),
        Reply::error(404, "model /home/somebody/m.gguf is not there"),
        Reply::Ends("length"),
    ] {
        let dir = TempDir::new().unwrap();
        model.next(reply);
        let live = plan(&recorder(&model, &dir)).await.unwrap_err();
        let text = recorded(&model, &dir);
        assert!(!text.contains("/home/somebody"), "{text}");
        let replayed = plan(&ReplayPlanner::new(Some(dir.path().to_owned())))
            .await
            .unwrap_err();
        assert_eq!(replayed, live);
        assert!(matches!(replayed, PlanError::Failed(Failure { .. })));
    }
}

#[tokio::test]
async fn a_provider_that_is_down_takes_no_recorded_plan_away() {
    let dir = TempDir::new().unwrap();
    let model = model().await;
    plan(&recorder(&model, &dir)).await.unwrap();
    let before = recorded(&model, &dir);
    for _ in 0..100 {
        model.next(Reply::error(503, "later"));
    }
    let live = LivePlanner::new(LiveConfig {
        deadline: Duration::from_millis(100),
        ..config(&model.url())
    });
    let recorder = RecordPlanner::new(Arc::new(live), dir.path().to_owned());
    let error = plan(&recorder).await.unwrap_err();
    assert_eq!(error.code(), "planner_unavailable");
    assert_eq!(recorded(&model, &dir), before);
    let path = dir
        .path()
        .join(format!("{}.json", fixture_key(&intent(), 7)));
    let fixture = Fixture::read(before.as_bytes(), &fixture_key(&intent(), 7), &path).unwrap();
    assert!(fixture.answer.is_ok());
}
