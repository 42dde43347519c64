//! One OpenCode, one scripted model, and what the tests ask of them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Script, ScriptedModel};
use kodo_contract::{Intent, decode};
use kodo_jail::{Helper, JailConfig};
use kodo_planner::{
    Endpoint, OpenCodeConfig, OpenCodeLauncher, OpenCodePlace, OpenCodePlanner, PlanError,
    PlanRequest, Planned, Planner, Policy, Secret, TESTED_VERSION, VersionRule,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::jailed::JailedOpenCode;

/// A key that must be seen nowhere but in the header of what goes to the model.
pub const KEY: &str = "sk-canary-0123456789abcdef";

/// What the tests of this process share.
pub struct Stage {
    runtime: Runtime,
    pub model: ScriptedModel,
    pub planner: OpenCodePlanner,
}

/// The stage, for one test at a time: what the model answers next is for whoever asks next.
pub struct Turn(
    &'static Stage,
    #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>,
);

impl std::ops::Deref for Turn {
    type Target = Stage;
    fn deref(&self) -> &Stage {
        self.0
    }
}

impl Turn {
    pub fn run<T>(&self, test: impl Future<Output = T>) -> T {
        self.0.runtime.block_on(test)
    }
}

pub fn stage() -> Turn {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    static TURNS: Mutex<()> = Mutex::new(());
    let turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = STAGE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let model = runtime.block_on(model());
        let planner = OpenCodePlanner::new(config(&model.url(), Duration::from_secs(60)));
        Stage {
            runtime,
            model,
            planner,
        }
    });
    Turn(stage, turn)
}

/// A plan that calls one tool.
pub fn plan_json() -> Value {
    json!({
        "prompt": "Look at ü.",
        "toolCalls": [{"name": "exec", "args": {"argv": ["ls", "-l"], "n": 12}}],
        "responses": [{"role": "assistant", "text": "a } \" { b"}],
        "diffs": [],
    })
}

pub async fn model() -> ScriptedModel {
    let script = Script::default().otherwise(plan_json());
    ScriptedModel::start(0, script).await.unwrap()
}

/// The program that `test:opencode` has installed.
pub fn program() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one thing that the task tells these tests"
    )]
    let program = std::env::var_os("OC_OPENCODE_BIN");
    let program =
        program.expect("OC_OPENCODE_BIN: run these tests by `bin/mise run test:opencode`");
    PathBuf::from(program)
        .canonicalize()
        .expect("OpenCode is there")
}

/// The jail, whose helper is the real binary.
pub fn jail() -> JailConfig {
    let kodo = PathBuf::from(env!("CARGO_BIN_EXE_kodo"));
    JailConfig {
        helper: Helper::program(kodo, vec!["jail-init".into()]),
        ..JailConfig::default()
    }
}

pub fn config(url: &str, deadline: Duration) -> OpenCodeConfig {
    launched(
        Arc::new(JailedOpenCode::new(program(), jail())),
        url,
        deadline,
    )
}

pub fn launched(
    launcher: Arc<dyn OpenCodeLauncher>,
    url: &str,
    deadline: Duration,
) -> OpenCodeConfig {
    OpenCodeConfig {
        place: OpenCodePlace::Started {
            launcher,
            endpoint: Endpoint::parse(url, false).unwrap(),
            secret: Some(Secret::new(KEY)),
            first_pause: Duration::from_millis(5),
        },
        version: VersionRule::Exactly(TESTED_VERSION.to_owned()),
        model: "vendor/scripted".to_owned(),
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

/// Asks once.
pub async fn ask(planner: &OpenCodePlanner) -> Result<Planned, PlanError> {
    let intent: Intent = decode(&json!({"goal": "g", "inputs": {}, "constraints": {}})).unwrap();
    let request = PlanRequest {
        intent: &intent,
        seed: 424_242,
        idempotency_key: "run_1/plan",
    };
    let answer = planner.plan(&request).await;
    // Whatever comes of it, the key is not in it.
    let shown = match &answer {
        Ok(planned) => format!("{planned:?}"),
        Err(error) => format!("{error:?} {error}"),
    };
    assert!(!shown.contains(KEY), "{shown}");
    answer
}

/// The code of a failure and its sentence.
pub fn failed(answer: Result<Planned, PlanError>) -> (&'static str, String) {
    let error = answer.expect_err("there should be no plan");
    (error.code().as_str(), error.to_string())
}

/// Waits for something to be so, bounded.
pub async fn until(what: &str, mut look: impl FnMut() -> bool) {
    // A start takes that long where the machine is busy.
    let deadline = Instant::now() + Duration::from_secs(90);
    while !look() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
