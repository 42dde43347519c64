//! `kodo sandbox run`: one job, from the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, ensure};
use kodo_sandbox::{Ended, InputFile, JobResult, JobSpec, Limits, result_of};
use serde_json::{Map, Value};

use crate::cli::{RunFormat, SandboxCommand, SandboxRun};
use crate::output;
use crate::sandbox::{explained, for_one_job};
use crate::settings::Settings;

/// Exit code where nothing was run, as of other programs that run programs.
const NOT_RUN: u8 = 125;

/// Runs one of them. Its exit codes are the job's, so it has one of its own for whatever else goes wrong, settings
/// included.
pub(crate) async fn run(settings: anyhow::Result<Settings>, command: SandboxCommand) -> ExitCode {
    let SandboxCommand::Run(arguments) = command;
    let ended = async { job(&settings?, &arguments).await };
    ended.await.unwrap_or_else(|error| {
        output::tell(format_args!("kodo: {error:#}"));
        ExitCode::from(NOT_RUN)
    })
}

async fn job(settings: &Settings, arguments: &SandboxRun) -> anyhow::Result<ExitCode> {
    let spec = spec_of(arguments)?;
    if let Some(folder) = &arguments.out {
        ensure!(
            fs::symlink_metadata(folder).is_err(),
            "--out {}: it exists already",
            folder.display()
        );
    }
    let mut live = settings.live.clone();
    live.jail.explain = arguments.explain;
    let sandbox = for_one_job(&live).await?;
    let result = sandbox
        .run(&spec)
        .await
        .map_err(|error| anyhow!("{}: {}", error.code(), explained(&error)))?;
    // Before it is printed: a failed write there must not cost the files.
    if let Some(folder) = &arguments.out {
        write_files(&result, folder).with_context(|| format!("--out {}", folder.display()))?;
    }
    match arguments.format {
        RunFormat::Json => {
            let text = serde_json::to_string_pretty(&result_of(&result))?;
            output::print(text + "\n")?;
        }
        RunFormat::Text => print(&result)?,
    }
    if arguments.explain {
        explain(&result);
    }
    Ok(ExitCode::from(
        u8::try_from(result.exit_code()).unwrap_or(u8::MAX),
    ))
}

fn spec_of(arguments: &SandboxRun) -> anyhow::Result<JobSpec> {
    let mut spec = JobSpec::new(arguments.argv.iter().cloned());
    for (path, name) in &arguments.files {
        let place = || format!("--file {}:{name}", path.display());
        let content = fs::read(path).with_context(place)?;
        let mode = fs::metadata(path).with_context(place)?.permissions().mode();
        spec.files.push(InputFile {
            executable: mode & 0o100 != 0,
            ..InputFile::new(name, content)
        });
    }
    spec.env.extend(arguments.env.iter().cloned());
    let limits: Map<String, Value> = arguments
        .limits
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(*value)))
        .collect();
    spec.limits = serde_json::from_value::<Limits>(Value::Object(limits)).context("--limit")?;
    spec.cwd.clone_from(&arguments.cwd);
    Ok(spec)
}

fn print(result: &JobResult) -> anyhow::Result<()> {
    output::print(result.stdout.bytes())?;
    output::print_to_stderr(result.stderr.bytes())?;
    match result.ended {
        Ended::Stopped { reason, .. } => {
            let told = result.limit_told().unwrap_or_default();
            output::tell(format_args!(
                "kodo: ended by its limit: {reason} ({told}; here: --limit)"
            ));
        }
        Ended::Signaled(signal) => {
            output::tell(format_args!("kodo: ended by signal {signal}"));
        }
        Ended::Exited(_) => {}
    }
    Ok(())
}

fn explain(result: &JobResult) {
    let told = result.enforced.get("refused").map(String::as_str);
    match told {
        Some("") => output::tell("kodo: the job was refused nothing"),
        Some(refused) => {
            for line in refused.lines() {
                output::tell(format_args!("kodo: refused: {line}"));
            }
        }
        None => {
            let provider = result.provider;
            output::tell(format_args!(
                "kodo: the provider {provider} does not explain"
            ));
        }
    }
}

fn write_files(result: &JobResult, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    for file in &result.files {
        // Names are relative and lead nowhere else: the provider sees to that.
        let place = folder.join(&file.name);
        if let Some(above) = place.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&place, &file.content)?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
