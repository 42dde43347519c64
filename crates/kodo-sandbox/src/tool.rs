//! Translates a tool call to a job.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kodo_contract::ToolCall;
use serde::Deserialize;
use serde_json::Value;

use crate::tool_outcome::patterns_of;
use crate::{InputFile, JobSpec, Limits, Overlay, SandboxError, SecretUse, Workspace};

/// The one tool of a sandbox that runs programs.
///
/// ```json
/// {"argv": ["/bin/sh", "-c", "make test"], "files": {"Makefile": "…"}, "env": {"CI": "1"},
///  "cwd": "src", "limits": {"wallMs": 30000, "memoryBytes": 268435456},
///  "secrets": ["TOKEN", {"name": "KEY", "file": "id_ed25519"}], "artifacts": ["dist/**", "*.log"]}
/// ```
///
/// `argv`, or `shell`, a string that becomes `["/bin/sh", "-c", …]`; exactly one of them. A file is a string,
/// or `{"content": …, "encoding": "base64", "executable": true}`. Everything else may be left out.
pub const EXEC_TOOL: &str = "exec";

/// The most secrets of one call.
const MAX_SECRETS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Args {
    argv: Option<Vec<String>>,
    shell: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, Value>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    cwd: String,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    network: bool,
    #[serde(default)]
    secrets: Vec<SecretUse>,
    artifacts: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileArg {
    content: String,
    encoding: Option<String>,
    #[serde(default)]
    executable: bool,
}

/// What a tool call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolJob {
    /// The job, without its secrets.
    pub spec: JobSpec,
    /// The secrets that it names.
    pub secrets: Vec<SecretUse>,
    /// Which of the files that it leaves are artifacts, as patterns of paths; if not given, those that are new or changed.
    pub artifacts: Option<Vec<String>>,
}

/// The job that a tool call asks for, with this workspace and these files in its folder; the call's own files replace those of the same name.
///
/// # Errors
/// [`SandboxError::ToolNotSupported`] for any tool except [`EXEC_TOOL`], [`SandboxError::ToolArgsInvalid`] for invalid
/// arguments. Nothing has been run in either case.
pub fn job_of(
    call: &ToolCall,
    given: &[InputFile],
    workspace: Option<&Workspace>,
) -> Result<ToolJob, SandboxError> {
    if call.name != EXEC_TOOL {
        return Err(SandboxError::ToolNotSupported {
            tool: call.name.clone(),
        });
    }
    let invalid = |reason: String| SandboxError::ToolArgsInvalid {
        tool: call.name.clone(),
        reason,
    };
    let args = Args::deserialize(Value::Object(call.args.clone()))
        .map_err(|error| invalid(error.to_string()))?;
    let argv = match (args.argv, args.shell) {
        (Some(argv), None) => argv,
        (None, Some(shell)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), shell],
        _ => {
            return Err(invalid(
                "give either `argv` or `shell`, and not both".to_owned(),
            ));
        }
    };
    if args.secrets.len() > MAX_SECRETS {
        return Err(invalid(format!("it names more than {MAX_SECRETS} secrets")));
    }
    if let Some(patterns) = &args.artifacts {
        patterns_of(patterns).map_err(invalid)?;
    }
    let mut files = Overlay::default();
    for file in given {
        files.put(&file.name, file.clone());
    }
    let mut own = JobSpec::new(["true"]);
    for (name, value) in args.files {
        own.files.push(input(name, value).map_err(invalid)?);
    }
    // The call's own files are validated against each other; they replace inherited files of the same name.
    if let Err(SandboxError::JobInvalid { reason }) = own.check() {
        return Err(invalid(reason));
    }
    for file in own.files {
        files.put(&file.name.clone(), file);
    }
    let files = files.into_files().collect();
    let spec = JobSpec {
        argv,
        workspace: workspace.cloned(),
        files,
        env: args.env,
        cwd: args.cwd,
        limits: args.limits,
        network: args.network,
    };
    match spec.check() {
        Err(SandboxError::JobInvalid { reason }) => Err(invalid(reason)),
        checked => checked.map(|()| ToolJob {
            spec,
            secrets: args.secrets,
            artifacts: args.artifacts,
        }),
    }
}

/// What is wrong with a call of [`EXEC_TOOL`], as far as it can be checked before the call is carried out, for a plan that is
/// still being made: invalid arguments, limits above the operator's, a secret that the intent does not grant. `None` if
/// nothing is wrong, and for every other tool.
#[must_use]
pub fn call_fault(call: &ToolCall, granted: &[String], most: &Limits) -> Option<String> {
    if call.name != EXEC_TOOL {
        return None;
    }
    let asked = match job_of(call, &[], None) {
        Ok(asked) => asked,
        Err(SandboxError::ToolArgsInvalid { reason, .. }) => return Some(reason),
        Err(other) => return Some(other.to_string()),
    };
    if asked.spec.network {
        return Some("network: no sandbox grants one".to_owned());
    }
    let mut names = asked.secrets.iter().map(SecretUse::name);
    if let Some(name) = names.find(|name| !granted.iter().any(|it| it == name)) {
        return Some(format!(
            "the secret {name:?} is none that the intent's constraints.secrets names"
        ));
    }
    asked.spec.limits.within(most).err()
}

/// The files of an object such as an intent's `inputs.files`, written as the `files` of [`EXEC_TOOL`] are.
///
/// # Errors
/// [`SandboxError::InputFilesInvalid`].
pub fn input_files(files: &Value) -> Result<Vec<InputFile>, SandboxError> {
    let invalid = |reason: String| SandboxError::InputFilesInvalid { reason };
    let Value::Object(files) = files else {
        return Err(invalid(
            "it must be an object: a name for each file, with its content".to_owned(),
        ));
    };
    let mut read = Vec::with_capacity(files.len());
    for (name, value) in files {
        let file = input(name.clone(), value.clone()).map_err(invalid)?;
        read.push(file);
    }
    let mut job = JobSpec::new(["true"]);
    job.files = read;
    match job.check() {
        Err(SandboxError::JobInvalid { reason }) => Err(invalid(reason)),
        checked => checked.map(|()| job.files),
    }
}

fn input(name: String, value: Value) -> Result<InputFile, String> {
    let file = match value {
        Value::String(content) => FileArg {
            content,
            encoding: None,
            executable: false,
        },
        other => {
            FileArg::deserialize(other).map_err(|error| format!("the file {name:?}: {error}"))?
        }
    };
    let content = match file.encoding.as_deref() {
        None | Some("utf-8") => file.content.into_bytes(),
        Some("base64") => STANDARD
            .decode(&file.content)
            .map_err(|error| format!("the file {name:?} is no base64: {error}"))?,
        Some(other) => {
            return Err(format!(
                "the file {name:?} has the encoding {other:?}; utf-8 and base64 are accepted"
            ));
        }
    };
    Ok(InputFile {
        executable: file.executable,
        ..InputFile::new(&name, content)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str, args: Value) -> Result<JobSpec, SandboxError> {
        let call = ToolCall {
            name: name.to_owned(),
            args: args.as_object().unwrap().clone(),
            ..ToolCall::default()
        };
        job_of(&call, &[], None).map(|asked| asked.spec)
    }

    #[test]
    fn a_command_is_an_array_or_an_explicit_shell_string() {
        let job = call("exec", json!({"argv": ["ls", "-l"]})).unwrap();
        assert_eq!(job, JobSpec::new(["ls", "-l"]));
        let job = call("exec", json!({"shell": "ls | wc -l"})).unwrap();
        assert_eq!(job.argv, ["/bin/sh", "-c", "ls | wc -l"]);
    }

    #[test]
    fn files_environment_folder_and_limits_come_along() {
        let args = json!({
            "argv": ["./run"],
            "files": {
                "src/a.txt": "text",
                "run": {"content": "IyEvYmluL3NoCg==", "encoding": "base64", "executable": true},
            },
            "env": {"CI": "1"},
            "cwd": "src",
            "limits": {"wallMs": 1000, "processes": 4},
        });
        let job = call("exec", args).unwrap();
        assert_eq!(job.files[0].content, b"#!/bin/sh\n");
        assert!(job.files[0].executable && !job.files[1].executable);
        assert_eq!(job.files[1].name, "src/a.txt");
        assert_eq!(job.env["CI"], "1");
        assert_eq!((job.cwd.as_str(), job.limits.processes), ("src", 4));
    }

    #[test]
    fn a_calls_own_files_come_over_those_that_it_finds() {
        let call = ToolCall {
            name: "exec".to_owned(),
            args: json!({"argv": ["ls"], "files": {"a": "new"}, "secrets": ["KEY", {"name": "PEM", "file": "k/p"}]})
                .as_object()
                .unwrap()
                .clone(),
            ..ToolCall::default()
        };
        let given =
            input_files(&json!({"a": "old", "b": {"content": "Yg==", "encoding": "base64"}}));
        let asked = job_of(&call, &given.unwrap(), None).unwrap();
        let files: Vec<(&str, &[u8])> = asked
            .spec
            .files
            .iter()
            .map(|it| (it.name.as_str(), it.content.as_slice()))
            .collect();
        assert_eq!(files, [("a", b"new".as_slice()), ("b", b"b")]);
        let names: Vec<&str> = asked.secrets.iter().map(SecretUse::name).collect();
        assert_eq!(names, ["KEY", "PEM"]);
    }

    #[test]
    fn input_files_that_are_none_are_refused() {
        for files in [
            json!([]),
            json!("a"),
            json!({"a": 1}),
            json!({"../a": ""}),
            json!({"a": "", "a/b": ""}),
            json!({"a": {"content": "!", "encoding": "base64"}}),
        ] {
            let error = input_files(&files).unwrap_err();
            assert_eq!(error.code(), "input_files_invalid", "{files}");
            assert!(!error.is_transient());
        }
        assert!(input_files(&json!({})).unwrap().is_empty());
    }

    #[test]
    fn what_can_be_told_before_a_call_is_carried_out_is_told() {
        let fault = |name: &str, args: Value| {
            let call = ToolCall {
                name: name.to_owned(),
                args: args.as_object().unwrap().clone(),
                ..ToolCall::default()
            };
            call_fault(&call, &["KEY".to_owned()], &Limits::most())
        };
        assert_eq!(fault("repo.inspect", json!({"any": "thing"})), None);
        let good = json!({"shell": "make", "cwd": "made/by/another/call", "secrets": ["KEY"]});
        assert_eq!(fault("exec", good), None);
        for (args, expected) in [
            (json!({"command": "ls"}), "unknown field `command`"),
            (json!({}), "give either `argv` or `shell`"),
            (
                json!({"argv": ["ls"], "network": true}),
                "network: no sandbox grants one",
            ),
            (
                json!({"argv": ["ls"], "secrets": ["KEY", "OTHER"]}),
                "the secret \"OTHER\" is none that",
            ),
            (
                json!({"argv": ["ls"], "limits": {"memoryBytes": 1_u64 << 40}}),
                "memoryBytes",
            ),
        ] {
            let told = fault("exec", args.clone()).unwrap_or_default();
            assert!(told.contains(expected), "{args}: {told}");
        }
    }

    #[test]
    fn another_tool_is_refused_by_name() {
        let error = call("repo.inspect", json!({})).unwrap_err();
        assert_eq!(error.code(), "tool_not_supported");
        assert!(!error.is_transient());
    }

    #[test]
    fn arguments_that_are_no_job_are_refused() {
        for args in [
            json!({}),
            json!({"argv": []}),
            json!({"argv": "ls"}),
            json!({"argv": ["a"], "shell": "b"}),
            json!({"shell": 1}),
            json!({"argv": ["a\0"]}),
            json!({"argv": ["a"], "cmd": "b"}),
            json!({"argv": ["a"], "files": {"../x": ""}}),
            json!({"argv": ["a"], "files": {"x": 1}}),
            json!({"argv": ["a"], "files": {"x": {"content": "!", "encoding": "base64"}}}),
            json!({"argv": ["a"], "files": {"x": {"content": "", "encoding": "latin1"}}}),
            json!({"argv": ["a"], "limits": {"wallMs": -1}}),
            json!({"argv": ["a"], "limits": {"speed": 1}}),
            json!({"argv": ["a"], "cwd": "/etc"}),
            json!({"argv": ["a"], "env": {"A=B": "c"}}),
            json!({"argv": ["a"], "secrets": "KEY"}),
            json!({"argv": ["a"], "secrets": vec!["KEY"; 65]}),
            json!({"argv": ["a"], "files": {"a": "", "a/b": ""}}),
            json!({"argv": ["a"], "secrets": [{"name": "KEY"}]}),
            json!({"argv": ["a"], "artifacts": "all"}),
            json!({"argv": ["a"], "artifacts": ["a{"]}),
        ] {
            let error = call("exec", args.clone()).unwrap_err();
            assert_eq!(error.code(), "tool_args_invalid", "{args}");
            assert!(!error.is_transient());
        }
    }
}
