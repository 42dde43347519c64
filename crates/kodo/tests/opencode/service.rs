//! A run that OpenCode plans, through the whole service: real HTTP, real Postgres, the real jail for both.

use crate::model::{Reply, Script, ScriptedModel};
use kodo_dev::harness::ServiceOptions;
use serde_json::{Value, json};

use crate::held::{below, called};
use crate::stage::{KEY, program};
use crate::support::{OTHER_INTENT, World, until};

/// One call that leaves a file, and one that reads it.
fn plan() -> Value {
    json!({
        "prompt": "Make it, then look.",
        "toolCalls": [
            {"name": "exec", "args": {"shell": "echo made > out"}},
            {"name": "exec", "args": {"argv": ["cat", "out"]}},
        ],
        "responses": [],
        "diffs": [],
    })
}

async fn model() -> ScriptedModel {
    let script = Script::default().otherwise(plan());
    ScriptedModel::start(0, script).await.unwrap()
}

fn asking(model: &ScriptedModel) -> impl FnOnce(ServiceOptions) -> ServiceOptions + use<> {
    let url = model.url();
    move |options| {
        options
            .env("OC_MODE", "live")
            .env("OC_PROVIDER", "opencode")
            .env("OC_OPENCODE_BIN", program().display())
            .env("OC_BASE_URL", url)
            .env("OC_MODEL", "vendor/scripted")
            .env("OC_API_KEY", KEY)
            .env("OC_DEADLINE_MS", 90_000)
            .env("SBX_MODE", "live")
    }
}

/// What the second call printed.
fn printed(view: &Value) -> &Value {
    &view["steps"][2]["output"]["stdout"]
}

#[tokio::test]
async fn a_run_planned_by_opencode_survives_a_kill_in_the_middle_of_the_plan() {
    let model = model().await;
    let mut world = World::with("opencode_service", asking(&model)).await;
    let options = world.options.clone();
    let intent = world.intent(OTHER_INTENT).await;

    model.next(Reply::Hang);
    let run = world.run(&intent).await;
    until("the question to the model", || async {
        model.seen().len() == 1
    })
    .await;
    let jailed = below(world.service.pid().unwrap());
    let lives = || jailed.iter().any(|pid| called(*pid, "service"));
    assert!(lives(), "OpenCode is a process below the service");
    world.restart(&options).await;
    until("the end of the killed service's OpenCode", || async {
        !lives()
    })
    .await;

    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let planned = &view["steps"][0]["output"];
    assert_eq!(planned["plan"], plan());
    assert_eq!(planned["source"]["provider"], "opencode");
    assert_eq!(printed(&view), "made\n");
    assert_eq!(
        model.seen().len(),
        2,
        "asked once before the kill and once after"
    );
    let keys: Vec<_> = model
        .seen()
        .iter()
        .map(|it| it.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys[0], keys[1], "the same question, by its key");
    let rows = world
        .count("SELECT count(*) FROM app.run_steps WHERE step_id = 'plan'")
        .await;
    assert_eq!(rows, 1);
    assert!(!view.to_string().contains(KEY));
    assert!(!world.service.log().contains(KEY));
    let jailed = below(world.service.pid().unwrap());
    let lives = || jailed.iter().any(|pid| called(*pid, "service"));
    assert!(lives(), "it stays for the next plan");
    world.service.stop().await.unwrap();
    until("the end of OpenCode with the service", || async {
        !lives()
    })
    .await;
}
