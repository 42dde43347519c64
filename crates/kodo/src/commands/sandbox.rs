//! `kodo sandbox run`: one job, from the command line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, ensure};
use kodo_sandbox::{Ended, InputFile, JobResult, JobSpec, Limits, result_of};
use serde_json::{Map, Number, Value};

use crate::cli::{RunFormat, SandboxCommand, SandboxRun};
use crate::sandbox::{explained, for_one_job};
use crate::settings::Settings;

/// Exit code where nothing was run, as of other programs that run programs.
const NOT_RUN: u8 = 125;

/// Runs one of them.
pub(crate) async fn run(settings: &Settings, command: SandboxCommand) -> anyhow::Result<ExitCode> {
    let SandboxCommand::Run(arguments) = command;
    match job(settings, &arguments).await {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("kodo: {error:#}");
            Ok(ExitCode::from(NOT_RUN))
        }
    }
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
    let sandbox = for_one_job(&settings.live).await?;
    let result = sandbox
        .run(&spec)
        .await
        .map_err(|error| anyhow!("{}: {}", error.code(), explained(&error)))?;
    // A reader that has seen enough (`| head`) is no error.
    let _ = match arguments.format {
        RunFormat::Json => {
            let text = serde_json::to_string_pretty(&result_of(&result))?;
            writeln!(std::io::stdout(), "{text}")
        }
        RunFormat::Text => print(&result),
    };
    if let Some(folder) = &arguments.out {
        write_files(&result, folder).with_context(|| format!("--out {}", folder.display()))?;
    }
    Ok(ExitCode::from(
        u8::try_from(result.exit_code()).unwrap_or(u8::MAX),
    ))
}

fn spec_of(arguments: &SandboxRun) -> anyhow::Result<JobSpec> {
    let mut spec = JobSpec::new(arguments.argv.iter().cloned());
    for file in &arguments.files {
        // The last colon: a name in the job's folder has none more often than a path of the machine.
        let (path, name) = file
            .rsplit_once(':')
            .with_context(|| format!("--file {file}: HOST_PATH:NAME is accepted"))?;
        let content = fs::read(path).with_context(|| format!("--file {file}"))?;
        let mode = fs::metadata(path)
            .with_context(|| format!("--file {file}"))?
            .permissions()
            .mode();
        spec.files.push(InputFile {
            name: name.to_owned(),
            content,
            executable: mode & 0o100 != 0,
        });
    }
    for variable in &arguments.env {
        let (key, value) = variable
            .split_once('=')
            .with_context(|| format!("--env {variable}: KEY=VALUE is accepted"))?;
        spec.env.insert(key.to_owned(), value.to_owned());
    }
    let mut limits = Map::new();
    for limit in &arguments.limits {
        let (name, value) = limit
            .split_once('=')
            .and_then(|(name, value)| Some((name, value.parse::<u64>().ok()?)))
            .with_context(|| format!("--limit {limit}: NAME=NUMBER is accepted"))?;
        limits.insert(name.to_owned(), Value::Number(Number::from(value)));
    }
    spec.limits = serde_json::from_value::<Limits>(Value::Object(limits)).context("--limit")?;
    spec.cwd.clone_from(&arguments.cwd);
    Ok(spec)
}

fn print(result: &JobResult) -> std::io::Result<()> {
    std::io::stdout().write_all(&result.stdout.bytes())?;
    let mut errors = std::io::stderr();
    errors.write_all(&result.stderr.bytes())?;
    match result.ended {
        Ended::Stopped { reason, .. } => writeln!(errors, "kodo: ended by its limit: {reason}"),
        Ended::Signaled(signal) => writeln!(errors, "kodo: ended by signal {signal}"),
        Ended::Exited(_) => Ok(()),
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
