//! A run of three tool calls is killed at every single point of its life, by SIGKILL, exactly there.
//!
//! Whatever the point, the run ends as if nothing had happened: the same rows, each once.

use hyper::Method;
use kodo_harness::{Answer, HarnessError};
use serde_json::Value;

use crate::evidence::{evidence, killed, step_versions, workflow};
use crate::support::{OTHER_INTENT, World, text, until};

/// The failpoint variable of debug builds; see `kodo_workflow::failpoint`.
const FAILPOINT: &str = "KODO_FAILPOINT";

/// A world with an intent and the evidence of a run that nobody disturbed.
struct Scene {
    world: World,
    intent: String,
    undisturbed: Value,
}

impl Scene {
    async fn new(test: &str) -> Self {
        let world = World::apart(test, |options| options).await;
        let intent = world.intent(OTHER_INTENT).await;
        let run = world.run(&intent).await;
        assert_eq!(world.ended(&run).await["status"], "succeeded");
        let undisturbed = evidence(&world, &run).await;
        let checkpoints = &undisturbed["system"]["checkpoints"];
        assert_eq!(
            checkpoints.as_array().map(Vec::len),
            Some(4),
            "{checkpoints}"
        );
        Self {
            world,
            intent,
            undisturbed,
        }
    }

    /// Starts a service that dies at `point`.
    async fn arm(&mut self, point: &str) {
        let armed = self.world.options.clone().env(FAILPOINT, point);
        self.world.restart(&armed).await;
    }

    /// Starts one that does not.
    async fn disarm(&mut self) {
        let options = self.world.options.clone();
        self.world.restart(&options).await;
    }

    /// `POST …/run` with an idempotency key that is the point's own.
    async fn post(&self, point: &str) -> Result<Answer, HarnessError> {
        let path = format!("/intents/{}/run", self.intent);
        let headers = [("Idempotency-Key", point)];
        self.world
            .client
            .send(Method::POST, &path, &headers, "{}")
            .await
    }

    /// Kills a run at `point`, restarts, and sees the run end as the undisturbed one did. The answer of the
    /// client's second try says whether the run had been stored before the kill.
    async fn dies_and_recovers(&mut self, point: &str) -> bool {
        let runs_before = self.runs().await;
        self.arm(point).await;
        // The process may be gone before it could answer: that is the client's every-day.
        let _ = self.post(point).await;
        killed(&mut self.world.service, point).await;
        let stored = self.runs().await - runs_before;
        let before = match self.newest_run().await {
            Some(run) if stored == 1 => step_versions(&self.world, &run).await,
            _ => Default::default(),
        };

        self.disarm().await;
        let again = self.post(point).await.expect("an answer after the restart");
        assert_eq!(again.status, 202, "{point}: {}", again.text());
        let replayed = again.header("Idempotency-Replayed") == Some("true");
        let run = text(&again, "runId");
        assert_eq!(
            self.runs().await,
            runs_before + 1,
            "{point}: exactly one run"
        );

        let view = self.world.ended(&run).await;
        assert_eq!(view["status"], "succeeded", "{point}: {view}");
        let found = evidence(&self.world, &run).await;
        assert_eq!(found, self.undisturbed, "{point}");
        let after = step_versions(&self.world, &run).await;
        for (step, version) in &before {
            assert_eq!(
                after.get(step),
                Some(version),
                "{point}: {step} was written again"
            );
        }
        replayed
    }

    async fn runs(&self) -> i64 {
        self.world.count("SELECT count(*) FROM app.runs").await
    }

    async fn newest_run(&self) -> Option<String> {
        sqlx::query_scalar("SELECT id FROM app.runs ORDER BY id DESC LIMIT 1")
            .fetch_optional(&self.world.app)
            .await
            .expect("runs")
    }

    async fn all(mut self, points: &[&str]) {
        for point in points {
            assert!(
                self.dies_and_recovers(point).await,
                "{point}: it was stored"
            );
        }
    }
}

#[tokio::test]
async fn a_run_killed_before_it_is_stored_leaves_nothing_and_the_clients_retry_makes_exactly_one() {
    let mut scene = Scene::new("crash_before").await;
    assert!(!scene.dies_and_recovers("accept:before").await);
    assert!(scene.dies_and_recovers("accept:committed").await);
    assert!(scene.dies_and_recovers("start:committed").await);
}

#[tokio::test]
async fn a_run_killed_around_its_plan_goes_on() {
    let points = ["plan:before", "plan:committed", "plan:checkpointed"];
    Scene::new("crash_plan").await.all(&points).await;
}

#[tokio::test]
async fn a_run_killed_around_its_first_tool_call_goes_on() {
    let points = [
        "tool-001:before",
        "tool-001:committed",
        "tool-001:checkpointed",
    ];
    Scene::new("crash_tool1").await.all(&points).await;
}

#[tokio::test]
async fn a_run_killed_around_its_second_tool_call_goes_on() {
    let points = [
        "tool-002:before",
        "tool-002:committed",
        "tool-002:checkpointed",
    ];
    Scene::new("crash_tool2").await.all(&points).await;
}

#[tokio::test]
async fn a_run_killed_around_its_third_tool_call_goes_on() {
    let points = [
        "tool-003:before",
        "tool-003:committed",
        "tool-003:checkpointed",
    ];
    Scene::new("crash_tool3").await.all(&points).await;
}

#[tokio::test]
async fn a_run_killed_at_its_end_is_settled() {
    let points = ["end:before", "settle:before", "settle:committed"];
    Scene::new("crash_end").await.all(&points).await;
}

/// Kills a crash demo at each point; both effects are there once, and asking again adds none.
async fn demo(test: &str, points: &[&str]) {
    let mut world = World::apart(test, |options| options.env("WF_SLEEP_MS", 50)).await;
    for point in points {
        let id = format!("demo {point}");
        let path = format!("/crashdemo?wf={}", id.replace(' ', "%20"));
        let armed = world.options.clone().env(FAILPOINT, point);
        world.restart(&armed).await;
        let _ = world.client.post(&path, "").await;
        killed(&mut world.service, point).await;
        let options = world.options.clone();
        world.restart(&options).await;
        until(&format!("the end of {id}"), || async {
            workflow(&world, &id).await.2 == "SUCCESS"
        })
        .await;
        let again = world.client.post(&path, "").await.expect("an answer");
        assert_eq!(again.status, 202, "{}", again.text());
        let marks = world.client.get(&path.replace("crashdemo", "marks")).await;
        assert_eq!(
            marks.expect("marks").text(),
            r#"{"s1":1,"s2":1}"#,
            "{point}"
        );
        let checkpoints: Vec<String> = sqlx::query_scalar(
            "SELECT function_name FROM dbos.operation_outputs WHERE workflow_uuid = $1 ORDER BY function_id",
        )
        .bind(&id)
        .fetch_all(&world.system)
        .await
        .expect("checkpoints");
        assert_eq!(checkpoints, ["s1", "DBOS.sleep", "s2"], "{point}");
    }
}

#[tokio::test]
async fn a_crash_demo_killed_around_its_first_effect_has_it_once() {
    demo(
        "crash_s1",
        &["s1:before", "s1:committed", "s1:checkpointed"],
    )
    .await;
}

#[tokio::test]
async fn a_crash_demo_killed_around_its_second_effect_has_it_once() {
    demo(
        "crash_s2",
        &["s2:before", "s2:committed", "s2:checkpointed"],
    )
    .await;
}
