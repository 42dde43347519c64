//! Real work, shown: a plan of a model, carried out in the jail, with a `kill -9` in the middle of it.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, ensure};
use kodo_dev::harness::{Databases, Service};
use kodo_dev::scripted_model::{Script, ScriptedModel};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::process::Command;

use super::{Args, PATIENCE, post, stop, until};
use crate::say;

/// What is asked for.
const GOAL: &str = "Make the failing tests pass";

/// A file of the committed example.
macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../../../../fixtures/work/", $name))
    };
}

/// The repository, and the change that a good plan makes to it.
const REPOSITORY: [(&str, &str); 3] = [
    ("README.md", file!("repository/README.md")),
    ("src/slug.sh", file!("repository/src/slug.sh")),
    ("tests/run.sh", file!("repository/tests/run.sh")),
];
const PATCH: &str = file!("fix.patch");
const SUMMARY: &str = file!("summary.sh");

/// The sandbox that is shown, whatever this machine could do beyond it.
const JAIL: [(&str, &str); 2] = [
    ("SBX_PROVIDER", "process"),
    ("SBX_MIN_ISOLATION", "process"),
];

/// The calls of the plan, and what each of them is for.
const CALLS: [&str; 4] = [
    "run the tests and see them fail",
    "apply the patch",
    "run the tests again and see them pass",
    "write the summary",
];

/// Shows it, or says what this machine lacks for it: exit code 1 then, unless that is allowed.
pub(super) async fn run(args: &Args, allow_none: bool) -> anyhow::Result<ExitCode> {
    if let Some(lacking) = lacking().await? {
        say::line(&format!(
            "{} work in a jail. This machine cannot jail: {lacking}",
            say::bold("Not shown:")
        ));
        return Ok(match allow_none {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    args.on_own_databases("kodo_work", async |databases| show(args, databases).await)
        .await?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine lacks to jail a job, in the words of `kodo sandbox run`; `None` if a job has run.
async fn lacking() -> anyhow::Result<Option<String>> {
    let program = std::env::current_exe()?.with_file_name("kodo");
    let tried = Command::new(&program)
        .args(["sandbox", "run", "--", "/bin/true"])
        .envs(JAIL)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if tried.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&tried.stderr);
    let said = said.trim().trim_start_matches("kodo: ");
    // Behind the error's code, and behind what says which sandbox was asked for: what that sandbox itself says.
    let reason = said.trim_start_matches("sandbox_refused: ");
    let reason = reason.split_once(": process: ").map_or(reason, |it| it.1);
    Ok(Some(match reason {
        "" => format!("a job that does nothing ended with {}", tried.status),
        reason => reason.to_owned(),
    }))
}

fn intent() -> Value {
    let files: serde_json::Map<String, Value> = REPOSITORY
        .into_iter()
        .map(|(name, content)| (name.to_owned(), content.into()))
        .collect();
    json!({"goal": GOAL, "inputs": {"files": files}, "constraints": {"network": false}})
}

/// What a good model would answer: reproduce, change, check, tell. The first two need nothing of each other.
fn plan() -> Value {
    json!({
        "prompt": "Find out why the tests of slug fail, and make them pass without changing them.",
        "toolCalls": [
            {"id": "before", "deps": [], "name": "exec", "args": {
                "shell": "sh tests/run.sh > before.tap; code=$?; cat before.tap; test $code -eq 1"}},
            {"id": "fix", "deps": [], "name": "exec", "args": {
                "argv": ["git", "apply", "--verbose", "fix.patch"], "files": {"fix.patch": PATCH}}},
            {"id": "after", "deps": ["fix"], "name": "exec", "args": {
                "shell": "sh tests/run.sh > after.tap; code=$?; cat after.tap; exit $code"}},
            {"id": "summary", "deps": ["before", "after"], "name": "exec", "args": {
                "argv": ["sh", "summary.sh"], "files": {"summary.sh": SUMMARY}}},
        ],
        "responses": [{"role": "assistant", "text": "A run of separators has to become one dash, and none at an end."}],
        "diffs": [{"path": "src/slug.sh", "patch": PATCH}],
    })
}

async fn show(args: &Args, databases: &Databases) -> anyhow::Result<()> {
    say::line(&say::bold(
        "Sisu Kodo at work: plan, jail, proof, and a kill -9 in the middle.",
    ));
    say::step(
        1,
        "A repository with failing tests, a model that answers by script, a service with a jail.",
    );
    let model = ScriptedModel::start(0, Script::default().with(GOAL, plan())).await?;
    say::line(&format!(
        "   {} stands in for a model: it has one answer, to this goal, and gives it over the same HTTP as a real one",
        model.url()
    ));
    say::line("   (README.md says how to point the planner at yours)");
    let options = args
        .service(databases)?
        .env("OC_MODE", "live")
        .env("OC_PROVIDER", "openai")
        .env("OC_BASE_URL", model.url())
        .env("OC_MODEL", "scripted")
        .env("OC_ALLOWED_TOOLS", "exec")
        .env("SBX_MODE", "live")
        .envs(
            JAIL.map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        );
    let app = databases.app_pool();
    let mut service = Service::start(&options).await?;
    let run = start(&service).await?;

    say::step(
        2,
        "The tests run twice at once, as they were and patched, in two jails.",
    );
    // The patch is applied, and the tests take their time.
    until(PATIENCE, "the patch", async || {
        Ok(steps(&app).await?.iter().any(|step| step == "tool-002"))
    })
    .await
    .with_context(|| format!("the service's log:\n{}", service.log()))?;
    let pid = service.pid().unwrap_or_default();
    service.kill9().await?;
    let before = steps(&app).await?;
    let killed = say::bad(&format!("kill -9 {pid}"));
    say::line(&format!(
        "   {killed}, and the jails die with it. What the database holds now:"
    ));
    let was = |id: &str| before.iter().any(|step| step == id);
    table(|id| if was(id) { "recorded" } else { "-" });
    ensure!(
        before.len() < CALLS.len() + 1,
        "the run was over before the kill: this machine is too fast for the demo"
    );

    say::step(3, "The service starts again, and the run goes on.");
    let service = Service::start(&options).await?;
    until(PATIENCE, "the end of the run", async || {
        let status: String = sqlx::query_scalar("SELECT status FROM app.runs WHERE id = $1")
            .bind(&run)
            .fetch_one(&app)
            .await?;
        ensure!(
            status != "failed",
            "the run failed: {}",
            view(&service, &run).await?
        );
        Ok(status == "succeeded")
    })
    .await
    .with_context(|| format!("the service's log:\n{}", service.log()))?;
    let after = steps(&app).await?;
    table(|id| match () {
        () if was(id) => "before",
        () if after.iter().any(|step| step == id) => "after",
        () => "-",
    });
    let asked = model.seen().len();
    let times = match asked {
        1 => "once".to_owned(),
        several => format!("{several} times"),
    };
    say::line(&format!(
        "   the model was asked {} in all",
        say::bold(&times)
    ));

    say::step(4, "What it made, from the run's artifacts:");
    let report = results(&view(&service, &run).await?)?;
    ensure!(
        asked == 1 && after.len() == CALLS.len() + 1 && report == (3, 0),
        "the rows do not show what they should: that is a bug, please report the lines above"
    );
    stop(service).await?;
    say::line(&format!(
        "\n{} The tests passed in the jail, and every step is in the database once.",
        say::good("Done.")
    ));
    Ok(())
}

/// Stores the intent, starts its run, and returns the run's id.
async fn start(service: &Service) -> anyhow::Result<String> {
    let intent = post(service, "/intents", intent().to_string(), (201, "intentId")).await?;
    let path = format!("/intents/{intent}/run");
    let run = post(service, &path, "", (202, "runId")).await?;
    say::line(&format!(
        "   POST /intents -> 201 {intent}: {GOAL:?}, with {} files",
        REPOSITORY.len()
    ));
    say::line(&format!("   POST {path} -> 202 {run}"));
    Ok(run)
}

async fn view(service: &Service, run: &str) -> anyhow::Result<Value> {
    Ok(service.client().get(&format!("/runs/{run}")).await?.json())
}

/// The steps that are recorded.
async fn steps(app: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT step_id FROM app.run_steps ORDER BY step_id")
        .fetch_all(app)
        .await
}

fn table(cell: impl Fn(&str) -> &'static str) {
    let names = std::iter::once(("plan".to_owned(), "ask the model"))
        .chain((1..).map(|number| format!("tool-{number:03}")).zip(CALLS));
    for (id, what) in names {
        let cell = say::cell(cell(&id), 0);
        say::line(&format!("   {id:<10}{what:<40}{cell}"));
    }
}

/// Shows what the run has made. How many tests failed before and after, as the reports have it.
fn results(view: &Value) -> anyhow::Result<(usize, usize)> {
    let artifacts = view["artifacts"].as_array().context("artifacts")?;
    let show = |title: &str, kind: &str, field: &str| -> anyhow::Result<usize> {
        let found = artifacts.iter().map(|it| (&it["kind"], &it["inline"]));
        let content = found
            .filter(|(it, inline)| *it == kind && (kind != "file" || inline["name"] == title))
            .find_map(|(_, inline)| inline[field].as_str())
            .with_context(|| format!("the artifact {title}"))?;
        say::line(&say::dim(&format!("   --- {title}")));
        for line in content.lines() {
            say::line(&format!("   {line}"));
        }
        let lines = content.lines();
        Ok(lines.filter(|line| line.starts_with("not ok")).count())
    };
    show("diff", "diff", "patch")?;
    let before = show("before.tap", "file", "content")?;
    let after = show("after.tap", "file", "content")?;
    show("summary.md", "file", "content")?;
    Ok((before, after))
}

#[cfg(test)]
mod tests {
    use kodo_contract::{Intent, Plan, decode};

    use super::*;

    #[test]
    fn intent_and_plan_are_valid() {
        let _: Intent = decode(&intent()).unwrap();
        let plan: Plan = decode(&plan()).unwrap();
        assert_eq!(plan.tool_calls.len(), CALLS.len());
        let dependencies = plan.dependencies().unwrap();
        assert_eq!(dependencies, [vec![], vec![], vec![1], vec![0, 2]]);
    }
}
