//! `kodo sandbox run`: one job, from the command line.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use kodo_contract::{ContentHash, NodeKind, Tree, TreeBounds};
use kodo_sandbox::{
    Ended, InputFile, JobResult, JobSpec, Limits, Spool, ToolJob, Workspace, files_left,
    outcome_of, tool_file,
};
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
    let content =
        Spool::in_folder(&std::env::temp_dir()).context("the folder for temporary files")?;
    let content = Arc::new(content);
    let spec = spec_of(arguments, &content, settings.sbx_workspace)?;
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
    if let (Some(folder), Some(tree)) = (&arguments.out, &result.workspace) {
        write_files(&spec, tree, &content, folder)
            .with_context(|| format!("--out {}", folder.display()))?;
    }
    let code = ExitCode::from(u8::try_from(result.exit_code()).unwrap_or(u8::MAX));
    match arguments.format {
        RunFormat::Json => {
            output::print(json(result.clone(), spec, &content)? + "\n")?;
        }
        RunFormat::Text => print(&result)?,
    }
    if arguments.explain {
        explain(&result);
    }
    Ok(code)
}

/// A job with a workspace, as a call of a run has one: what it leaves is bounded by what is carried.
fn spec_of(
    arguments: &SandboxRun,
    content: &Arc<Spool>,
    bounds: TreeBounds,
) -> anyhow::Result<JobSpec> {
    let mut spec = JobSpec::new(arguments.argv.iter().cloned());
    spec.workspace = Some(Workspace {
        tree: Tree::default(),
        content: Arc::clone(content),
        bounds,
    });
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

/// The result as a call of a run records it, with the content of all its files.
fn json(result: JobResult, spec: JobSpec, content: &Spool) -> anyhow::Result<String> {
    let asked = ToolJob {
        spec,
        secrets: Vec::new(),
        artifacts: None,
    };
    let mut told = outcome_of(result, &asked)?.result;
    for file in told.files.iter_mut().filter(|it| it.stored.is_some()) {
        let bytes = content.read(&ContentHash::parse(&file.sha256).context("a hash")?)?;
        *file = tool_file(&file.name, &bytes, &file.sha256, file.executable.is_some());
    }
    Ok(serde_json::to_string_pretty(&told)?)
}

fn write_files(spec: &JobSpec, left: &Tree, content: &Spool, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    for (path, hash, executable) in files_left(spec, left) {
        // Names are relative and lead nowhere else: the provider sees to that, and no link is made here.
        let place = folder.join(OsStr::from_bytes(path.as_bytes()));
        if let Some(above) = place.parent() {
            fs::create_dir_all(above)?;
        }
        let mut from = content.open(hash).context("its content is gone")?;
        io::copy(&mut from, &mut fs::File::create_new(&place)?)?;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
    }
    let links = left
        .iter()
        .filter(|(_, node)| matches!(node.kind, NodeKind::Symlink(_)))
        .count();
    if links > 0 {
        output::tell(format_args!(
            "kodo: --out: {links} symbolic links are not written"
        ));
    }
    Ok(())
}
