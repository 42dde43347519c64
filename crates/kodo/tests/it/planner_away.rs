//! A planner that is away: runs wait for it, durably and out of the way of others, and say why if it does not come back.

use std::time::Duration;

use crate::model::{Reply, Script, ScriptedModel};
use serde_json::{Value, json};

use crate::engine_clients::{cancel, resume};
use crate::live_planner::{asking, plan, reason};
use crate::proof::assert_invariants_hold;
use crate::support::{OTHER_INTENT, World, until};

async fn model_at(port: u16) -> ScriptedModel {
    let script = Script::default().otherwise(plan("scripted"));
    ScriptedModel::start(port, script).await.unwrap()
}

/// How many runs wait for their planner.
async fn waiting(world: &World) -> i64 {
    world
        .count(
            "SELECT count(*) FROM app.runs
             WHERE planner_away_since IS NOT NULL AND status IN ('queued', 'running')",
        )
        .await
}

/// A provider that asks for a long pause, which is beyond the deadline of any plan here.
fn busy() -> Reply {
    let error = json!({"error": {"message": "come back later"}});
    Reply::Status(503, vec![("retry-after", "600".to_owned())], error)
}

async fn posted(world: &World) -> String {
    let intent = world.intent(OTHER_INTENT).await;
    world.run(&intent).await
}

#[tokio::test]
async fn a_model_server_that_restarts_costs_no_run_even_if_the_service_is_killed_meanwhile() {
    let model = model_at(0).await;
    let port = model.port();
    let mut world = World::with("away_restart", |options| {
        asking(&model, "live")(options).env("OC_DEADLINE_MS", 300)
    })
    .await;
    drop(model);
    let run = posted(&world).await;
    until("the run to wait", || async { waiting(&world).await == 1 }).await;
    // The service is ready all the same, and says so.
    until("a warning of /readyz", || async {
        let ready = world.client.get("/readyz").await.unwrap();
        assert_eq!(ready.status, 200, "{}", ready.text());
        let warning = ready.json()["warnings"][0].as_str().map(str::to_owned);
        warning.is_some_and(|said| {
            said.starts_with("1 run waits for the planner since ") && said.contains("OC_BASE_URL")
        })
    })
    .await;
    let since = "SELECT (extract(epoch FROM planner_away_since) * 1000000)::bigint FROM app.runs";
    let first = world.count(since).await;
    world.service.kill9().await.unwrap();
    let options = world.options.clone();
    world.restart(&options).await;
    until("another try", || async {
        world.service.log().contains("the planner is away")
    })
    .await;
    assert_eq!(world.count(since).await, first, "the wait goes on");
    let _model = model_at(port).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(view["steps"][0]["output"]["plan"], plan("scripted"));
    assert_eq!(waiting(&world).await, 0);
    let ready = world.client.get("/readyz").await.unwrap();
    assert_eq!(ready.json()["warnings"], Value::Null);
    assert_invariants_hold(&world).await;
}

/// Files without a name that a process holds in a folder for content on its way.
fn spooled(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = open.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok());
    targets
        .filter(|it| it.to_string_lossy().contains("/spool/"))
        .count()
}

#[tokio::test]
async fn a_run_that_waits_keeps_no_workspace_on_the_disk() {
    let model = model_at(0).await;
    let port = model.port();
    let world = World::with("away_spool", |options| {
        asking(&model, "live")(options)
            .env("OC_DEADLINE_MS", 300)
            .env("SBX_MODE", "live")
    })
    .await;
    drop(model);
    let intent = json!({"goal": "g", "inputs": {"files": {"a": "given"}}, "constraints": {}});
    let id = world.intent(&intent.to_string()).await;
    let run = world.run(&id).await;
    let pid = world.service.pid().unwrap();
    until("the run to wait without it", || async {
        waiting(&world).await == 1 && spooled(pid) == 0
    })
    .await;
    let _model = model_at(port).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(view["steps"][0]["output"]["workspace"]["bytes"], 5);
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_planner_that_stays_away_ends_the_run_with_its_last_reason() {
    let model = model_at(0).await;
    let world = World::with("away_long", |options| {
        asking(&model, "live")(options)
            .env("OC_DEADLINE_MS", 300)
            .env("OC_UNREACHABLE_MS", 2000)
    })
    .await;
    // Longer than a run waits: there is no point in beginning to.
    let error = json!({"error": {"message": "closed for today"}});
    let closed = vec![("retry-after", "3600".to_owned())];
    model.next(Reply::Status(503, closed, error));
    let view = world.ended(&posted(&world).await).await;
    let (code, message) = reason(&view);
    assert_eq!(code, "planner_unavailable");
    assert!(
        message.contains("closed for today") && message.contains("OC_UNREACHABLE_MS"),
        "{message}"
    );
    let port = model.port();
    drop(model);
    let run = posted(&world).await;
    let view = world.ended(&run).await;
    let (code, message) = reason(&view);
    assert_eq!(code, "planner_unreachable");
    assert!(
        message.contains("OC_BASE_URL") && message.contains("OC_UNREACHABLE_MS"),
        "{message}"
    );
    assert!(world.service.log().contains("the planner is away"));
    // Resumed by hand, it waits anew. The engine resumes no workflow that failed, so this is a run that was canceled.
    let run = posted(&world).await;
    until("the run to wait", || async { waiting(&world).await > 0 }).await;
    cancel(&world, &run).await;
    assert_eq!(world.ended(&run).await["status"], "canceled");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _model = model_at(port).await;
    resume(&world, &run).await;
    let run = run.as_str();
    until("the run to succeed", || async {
        world.ended(run).await["status"] == "succeeded"
    })
    .await;
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_run_that_waits_for_its_planner_holds_nothing_that_others_need() {
    let model = model_at(0).await;
    let mut world = World::with("away_place", |options| {
        asking(&model, "live")(options)
            .env("MAX_CONCURRENT_RUNS", 1)
            .env("DRAIN_GRACE_MS", 30_000)
    })
    .await;
    model.next(busy());
    let waits = posted(&world).await;
    until("the run to wait", || async { waiting(&world).await == 1 }).await;
    // There is one place, and the run that waits does not hold it.
    let other = posted(&world).await;
    assert_eq!(world.ended(&other).await["status"], "succeeded");
    assert_eq!(waiting(&world).await, 1);
    // A cancel does not wait for it.
    model.next(busy());
    let canceled = posted(&world).await;
    until("both to wait", || async { waiting(&world).await == 2 }).await;
    cancel(&world, &canceled).await;
    let view = world.ended(&canceled).await;
    assert_eq!(view["status"], "canceled", "{view:#}");
    // A drain does not wait for it: it would take ten minutes.
    let status = world.service.stop().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(
        !world.service.log().contains("did not finish in time"),
        "{}",
        world.service.log()
    );
    let options = world.options.clone();
    world.restart(&options).await;
    // The next worker asks at once.
    let view: Value = world.ended(&waits).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_recorded_failure_is_replayed_at_once() {
    let model = model_at(0).await;
    let scratch = crate::scratch::Scratch::new("away_recorded");
    let dir = scratch.path().display().to_string();
    let mut world = World::with("away_recorded", |options| {
        asking(&model, "record")(options)
            .env("OC_FIXTURES_DIR", &dir)
            .env("OC_UNREACHABLE_MS", 0)
    })
    .await;
    model.next(busy());
    let recorded = world.ended(&posted(&world).await).await;
    assert_eq!(reason(&recorded).0, "planner_unavailable");
    let replay = world.options.clone().env("OC_MODE", "replay");
    let replay = replay.env("OC_UNREACHABLE_MS", 3_600_000);
    world.restart(&replay).await;
    let replayed = world.ended(&posted(&world).await).await;
    assert_eq!(reason(&replayed).0, "planner_unavailable");
    let away = "SELECT count(*) FROM app.runs WHERE planner_away_since IS NOT NULL";
    assert_eq!(world.count(away).await, 1, "the one that was recorded");
}
