//! `kodo-dev scripted-model`: the model that answers by script, for the tasks that have no other one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use kodo_dev::scripted_model::{Script, ScriptedModel};
use tokio::process::Command;

/// What the scripted model is called where a name is wanted.
const MODEL: &str = "scripted";

/// What the caller may have set for a real model: the scripted one gets no key, and answers whole.
const OF_ANOTHER_MODEL: &str =
    "OC_API_KEY OC_API_KEY_FILE OC_ALLOWED_CONNECTORS OC_MAX_STEPS OC_MAX_PLAN_BYTES OC_MAX_TOKENS";

/// Serve a scripted, OpenAI-compatible model on loopback for as long as a command runs.
#[derive(Debug, Args)]
pub(crate) struct ScriptedModelArgs {
    /// Which plan answers which goal: {"plans": {"GOAL": PLAN}, "otherwise": PLAN}
    #[arg(long, value_name = "FILE")]
    script: PathBuf,
    /// Runs with OC_BASE_URL and OC_MODEL set to the model; its exit code is this one's
    #[arg(last = true, value_name = "COMMAND", required = true)]
    command: Vec<String>,
}

/// Serves until the command ends.
pub(crate) fn run(args: ScriptedModelArgs) -> anyhow::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(serve(args))
}

async fn serve(args: ScriptedModelArgs) -> anyhow::Result<ExitCode> {
    let model = ScriptedModel::start(0, Script::read(&args.script)?).await?;
    let program = &args.command[0];
    let mut command = Command::new(program);
    for variable in OF_ANOTHER_MODEL.split_whitespace() {
        command.env_remove(variable);
    }
    let status = command
        .args(&args.command[1..])
        .env("OC_BASE_URL", model.url())
        .env("OC_MODEL", MODEL)
        // Its plans are committed, and name tools that only the mock sandbox has.
        .env("OC_ALLOWED_TOOLS", "*")
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    // A command that a signal ended has no code.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
