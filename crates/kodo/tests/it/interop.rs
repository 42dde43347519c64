//! DBOS's own clients, Python and TypeScript, on our databases: what they are shown, and what they do to runs. Run by the
//! task test:interop alone, which installs them.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::evidence::{checkpointed, workflow};
use crate::proof::assert_invariants_hold;
use crate::support::{OTHER_INTENT, World, until};

/// A client of DBOS, as the task installed it.
#[derive(Debug, Clone, Copy)]
enum Client {
    Python,
    TypeScript,
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the task has installed the clients"
)]
fn installed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable}: run bin/mise run test:interop"))
}

impl Client {
    /// One call of the client in a process of its own, and what it answered.
    async fn call(self, world: &World, arguments: &[&str]) -> Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/interop");
        let (program, script) = match self {
            Self::Python => (installed("KODO_TEST_DBOS_PYTHON"), "client.py"),
            Self::TypeScript => ("node".to_owned(), "client.mjs"),
        };
        let system = &world.databases().system;
        let url = format!(
            "postgresql://{}:{}@{}:{}/{}",
            system.user, system.password, system.host, system.port, system.database
        );
        let ended = Command::new(program)
            .arg(format!("{folder}/{script}"))
            .arg(url)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("the client starts");
        let (out, error) = (
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr),
        );
        assert!(
            ended.status.success(),
            "{self:?} {arguments:?}: {error}{out}"
        );
        // Warnings about what they cannot decode may come before.
        let last = out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|_| panic!("{self:?} {arguments:?}: {out}"))
    }
}

/// The status of the run of a workflow.
async fn status(world: &World, workflow: &str) -> Option<String> {
    sqlx::query_scalar("SELECT status FROM app.runs WHERE workflow_id = $1")
        .bind(workflow)
        .fetch_optional(&world.app)
        .await
        .expect("a status")
}

async fn becomes(world: &World, workflow: &str, wanted: &str) {
    until(&format!("{workflow} to be {wanted}"), || async {
        status(world, workflow).await.as_deref() == Some(wanted)
    })
    .await;
}

/// Everything that a client can do to a run, from its beginning to the deletion of what is left of it.
async fn everything(client: Client, test: &str) {
    let world = World::apart(test, |options| options.env("SBX_MOCK_DELAY_MS", 3000)).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    checkpointed(&world, &run, "plan").await;

    // Looking, and a resume of what runs: nothing is done twice.
    let listed = client.call(&world, &["list", &run]).await;
    assert_eq!(listed, json!([[run, "PENDING", "intent_run"]]));
    let steps = client.call(&world, &["steps", &run]).await;
    assert_eq!(steps[0], "plan", "{steps}");
    client.call(&world, &["resume", &run]).await;
    // A fork of what runs, which is cancelled, resumed, and does its own calls.
    let fork = client.call(&world, &["fork", &run, "1"]).await;
    let fork = fork.as_str().expect("a workflow's id").to_owned();
    until("the fork's run", || async {
        status(&world, &fork).await.is_some()
    })
    .await;
    client.call(&world, &["cancel", &fork]).await;
    becomes(&world, &fork, "canceled").await;
    client.call(&world, &["resume", &fork]).await;
    becomes(&world, &run, "succeeded").await;
    becomes(&world, &fork, "succeeded").await;
    let view = world.client.get(&format!("/runs/{fork}")).await.unwrap();
    assert_eq!(
        (view.status, &view.json()["status"]),
        (200, &json!("succeeded"))
    );
    let executions: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT epoch) FROM app.run_steps WHERE run_id = $1")
            .bind(&run)
            .fetch_one(&world.app)
            .await
            .unwrap();
    assert_eq!(executions, 1, "{}", world.service.log());

    // What has ended is not resumed, and a fork of it from its end takes everything over.
    client.call(&world, &["resume", &run]).await;
    assert_eq!(workflow(&world, &run).await.2, "SUCCESS");
    let whole = client.call(&world, &["fork", &run, "9"]).await;
    let whole = whole.as_str().expect("a workflow's id").to_owned();
    becomes(&world, &whole, "succeeded").await;
    assert_invariants_hold(&world).await;

    client.call(&world, &["delete", &run]).await;
    client.call(&world, &["delete", &fork]).await;
    assert_invariants_hold(&world).await;
    assert_eq!(status(&world, &run).await.as_deref(), Some("succeeded"));
}

#[tokio::test]
#[ignore = "needs the client that the task test:interop installs"]
async fn what_the_python_client_does_to_runs_is_what_they_become() {
    everything(Client::Python, "interop_python").await;
}

#[tokio::test]
#[ignore = "needs the client that the task test:interop installs"]
async fn what_the_typescript_client_does_to_runs_is_what_they_become() {
    everything(Client::TypeScript, "interop_typescript").await;
}
