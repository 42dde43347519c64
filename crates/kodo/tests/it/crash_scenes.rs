//! What the crash matrix disturbs: every workflow, every way in which it begins, and every way in which it ends.

use std::fmt;

use hyper::Method;
use kodo_dev::harness::{Answer, Client, ServiceOptions};
use serde_json::{Value, json};

use crate::evidence::{effects, evidence_but_for, workflow};
use crate::failed_runs::fixture;
use crate::scratch::Scratch;
use crate::support::{OTHER_INTENT, World, text, until};

/// Something that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scene {
    /// An intent is stored.
    Intent,
    /// A run of three tool calls succeeds. Each step waits for its checkpoint.
    Run,
    /// The same, with checkpoints that follow later, with the outcome at the latest.
    QuickRun,
    /// Its second tool call ends with an exit code, and so it fails.
    FailingRun,
    /// Its second tool call has no result at all, so that the step itself fails.
    BrokenRun,
    /// A run that is over is asked for again, with its key.
    ReplayedRun,
    /// The crash demo: an effect, a sleep, an effect.
    CrashDemo,
}

impl Scene {
    pub const ALL: [Self; 7] = [
        Self::Intent,
        Self::Run,
        Self::QuickRun,
        Self::FailingRun,
        Self::BrokenRun,
        Self::ReplayedRun,
        Self::CrashDemo,
    ];

    /// The step at which it goes another way than [`Scene::Run`], where it does.
    pub fn fails_at(self) -> Option<&'static str> {
        matches!(self, Self::FailingRun | Self::BrokenRun).then_some("tool-002:before")
    }

    /// The workflow that it leads to, by its name in the engine's table.
    pub fn workflow(self) -> Option<&'static str> {
        match self {
            Self::Intent => None,
            Self::CrashDemo => Some("crash_demo"),
            Self::Run | Self::QuickRun | Self::FailingRun | Self::BrokenRun | Self::ReplayedRun => {
                Some("intent_run")
            }
        }
    }
}

/// A scene, and what has happened to it before it is disturbed once more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    pub scene: Scene,
    /// The points at which its process was killed before, one after the other. The next start goes on with it, so
    /// nobody has to ask.
    pub killed_at: Vec<String>,
    /// The one that goes on with it ran beside the killed one, and takes over.
    pub beside: bool,
}

impl Life {
    /// From its very beginning.
    pub fn new(scene: Scene) -> Self {
        Self {
            scene,
            killed_at: Vec::new(),
            beside: false,
        }
    }

    /// The recovery after kills at these points.
    pub fn after(scene: Scene, points: &[&str]) -> Self {
        Self {
            killed_at: points.iter().map(|&point| point.to_owned()).collect(),
            ..Self::new(scene)
        }
    }

    /// Whether it needs a client's request to begin, or goes on as soon as a service starts.
    pub fn is_asked_for(&self) -> bool {
        self.killed_at.is_empty()
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scene = match self.scene {
            Scene::Intent => "intent",
            Scene::Run => "run",
            Scene::QuickRun => "quick run",
            Scene::FailingRun => "failing run",
            Scene::BrokenRun => "broken run",
            Scene::ReplayedRun => "replayed run",
            Scene::CrashDemo => "crash demo",
        };
        f.write_str(scene)?;
        for point in &self.killed_at {
            write!(f, ", killed at {point}")?;
        }
        if self.beside {
            f.write_str(", taken over")?;
        }
        Ok(())
    }
}

/// The plans that make a run fail.
pub struct Fixtures {
    failing: Scratch,
    broken: Scratch,
}

impl Fixtures {
    pub fn new(test: &str) -> Self {
        let second = |test: String, mock: Value| {
            let scratch = Scratch::new(&test);
            let call = |name: &str, mock: &Value| json!({"name": name, "args": {"mock": mock}});
            let calls = json!([
                call("first", &json!({})),
                call("second", &mock),
                call("third", &json!({})),
            ]);
            scratch.file("default.json", &fixture("default", &calls));
            scratch
        };
        Self {
            failing: second(
                format!("{test}_failing"),
                json!({"exitCode": 3, "stderr": "no such file\n"}),
            ),
            broken: second(
                format!("{test}_broken"),
                json!({"error": {"code": "sandbox_timeout", "retryable": false}}),
            ),
        }
    }

    /// A service under which the scene plays.
    pub fn options(&self, scene: Scene, options: &ServiceOptions) -> ServiceOptions {
        let options = options.clone().env("WF_SLEEP_MS", 50);
        let options = match scene {
            Scene::QuickRun => options,
            _ => options.env("CHECKPOINT_LINGER_MS", 0),
        };
        match scene {
            Scene::FailingRun => options.env("OC_FIXTURES_DIR", self.failing.path().display()),
            Scene::BrokenRun => options.env("OC_FIXTURES_DIR", self.broken.path().display()),
            _ => options,
        }
    }
}

/// One client's request, which it sends again for as long as it has no answer.
#[derive(Debug, Clone)]
pub struct Case {
    pub life: Life,
    /// Its idempotency key, and the demo's id: its own wherever it shows.
    pub key: String,
    path: String,
    body: String,
    intent: Option<String>,
    /// How many intents there were before.
    intents: i64,
}

impl Case {
    /// What a client does beforehand, at a service that nothing happens to.
    pub async fn new(world: &World, life: &Life, key: String) -> Self {
        let intents = world.count("SELECT count(*) FROM app.intents").await;
        let (path, body, intent) = match life.scene {
            Scene::Intent => ("/intents".to_owned(), OTHER_INTENT.to_owned(), None),
            Scene::CrashDemo => (format!("/crashdemo?wf={key}"), String::new(), None),
            Scene::Run
            | Scene::QuickRun
            | Scene::FailingRun
            | Scene::BrokenRun
            | Scene::ReplayedRun => {
                let intent = world.intent(OTHER_INTENT).await;
                let body = json!({"traceId": format!("trace of {key}")});
                (
                    format!("/intents/{intent}/run"),
                    body.to_string(),
                    Some(intent),
                )
            }
        };
        let case = Self {
            life: life.clone(),
            key,
            path,
            body,
            intent,
            intents,
        };
        if life.scene == Scene::ReplayedRun {
            let answer = case.ask(&world.client).await.expect("an answer");
            case.over(world, &text(&answer, "runId")).await;
        }
        case
    }

    /// The request, the same each time.
    pub async fn ask(&self, client: &Client) -> anyhow::Result<Answer> {
        let headers = [("Idempotency-Key", self.key.as_str())];
        let body = self.body.clone();
        client.send(Method::POST, &self.path, &headers, body).await
    }

    /// The status of an answer that says yes.
    pub fn yes(&self) -> u16 {
        if self.life.scene == Scene::Intent {
            201
        } else {
            202
        }
    }

    /// What the request made, while that is known to a row: the run, the demo, the intent. There is never a second.
    pub async fn made(&self, world: &World) -> Option<String> {
        let (query, by) = match self.life.scene {
            Scene::Intent => (
                "SELECT i.id FROM app.intents i JOIN app.idempotency_keys k ON strpos(k.body, i.id) > 0
                 WHERE k.key = $1",
                &self.key,
            ),
            Scene::CrashDemo => return Some(self.key.clone()),
            _ => (
                "SELECT id FROM app.runs WHERE intent_id = $1",
                self.intent.as_ref().expect("the run's intent"),
            ),
        };
        let made: Vec<String> = sqlx::query_scalar(query)
            .bind(by)
            .fetch_all(&world.app)
            .await
            .expect(query);
        assert!(made.len() <= 1, "{}: {made:?}", self.life);
        made.into_iter().next()
    }

    /// Whether everything that the request leads to has come to its end.
    pub async fn is_over(&self, world: &World, made: &str) -> bool {
        let (pool, query) = match self.life.scene {
            Scene::Intent => return true,
            Scene::CrashDemo => (
                &world.system,
                "SELECT EXISTS (SELECT FROM dbos.workflow_status
                                WHERE workflow_uuid = $1 AND status IN ('SUCCESS', 'ERROR'))",
            ),
            _ => (
                &world.app,
                "SELECT EXISTS (SELECT FROM app.runs
                                WHERE id = $1 AND status IN ('succeeded', 'failed', 'canceled'))",
            ),
        };
        sqlx::query_scalar(query)
            .bind(made)
            .fetch_one(pool)
            .await
            .expect(query)
    }

    /// Waits for that.
    pub async fn over(&self, world: &World, made: &str) {
        until(&format!("the end of {} ({made})", self.life), || {
            self.is_over(world, made)
        })
        .await;
    }

    /// Everything that is recorded of it in the end, comparable with that of another case of the same scene.
    pub async fn state(&self, world: &World, made: &str) -> Value {
        let own = [(self.key.as_str(), "KEY")];
        if self.life.scene == Scene::Intent {
            let rows: String = sqlx::query_scalar(
                "SELECT jsonb_build_object(
                     'intent', (SELECT to_jsonb(i) - 'created_at' FROM app.intents i WHERE id = $1),
                     'new intents', (SELECT count(*) FROM app.intents) - $3,
                     'idempotency', (SELECT jsonb_agg(to_jsonb(k) - '{created_at,fingerprint}'::text[])
                                     FROM app.idempotency_keys k WHERE key = $2),
                     'runs', (SELECT count(*) FROM app.runs WHERE intent_id = $1))::text",
            )
            .bind(made)
            .bind(&self.key)
            .bind(self.intents)
            .fetch_one(&world.app)
            .await
            .expect("the intent's state");
            let rows = rows.replace(made, "INTENT").replace(&self.key, "KEY");
            return serde_json::from_str(&rows).expect("JSON of Postgres");
        }
        let state = evidence_but_for(world, made, &own).await;
        let workflow = workflow(world, made).await;
        assert_eq!(
            Some(
                state["system"]["workflow"]["name"]
                    .as_str()
                    .expect("a name")
            ),
            self.life.scene.workflow(),
            "{workflow:?}"
        );
        state
    }

    /// The rows of its effects, each with the transaction that wrote it.
    pub async fn effects(&self, world: &World) -> std::collections::BTreeMap<String, String> {
        match self.made(world).await {
            Some(made) if self.life.scene != Scene::Intent => effects(world, &made).await,
            _ => Default::default(),
        }
    }
}
