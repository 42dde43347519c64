//! The mock sandbox, which runs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kodo_contract::{ToolCall, ToolFile, ToolResult, canonical_json, encode, sha256_hex};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Captured, Ended, Job, JobResult, JobSpec, Sandbox, SandboxError, ToolOutcome, Usage};

/// Carries out nothing, and answers each call with a success that depends on its name, its
/// arguments and the seed alone.
///
/// A call can script its answer with an argument `mock`, so that failures can be tried without a
/// sandbox that fails:
///
/// ```json
/// {"mock": {"exitCode": 1, "stdout": "", "stderr": "no such file\n", "files": {"log.txt": "content"}}}
/// {"mock": {"error": {"code": "sandbox_timeout", "retryable": true}}}
/// ```
///
/// What a script leaves out is as without it; `files` takes the place of the one usual file, and
/// `error` stands alone. A script of any other shape is a [`SandboxError::InvalidCall`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MockSandbox {
    delay: Duration,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Script {
    exit_code: Option<i32>,
    stdout: Option<String>,
    stderr: Option<String>,
    /// Sorted by name: the order of keys does not survive the database.
    files: Option<BTreeMap<String, String>>,
    error: Option<ScriptedError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptedError {
    code: String,
    retryable: bool,
}

impl MockSandbox {
    /// A mock sandbox that answers at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A mock sandbox that lets each call wait first, so that people can watch a run and tests can interrupt one.
    /// The answer is the same.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self { delay }
    }
}

#[async_trait]
impl Sandbox for MockSandbox {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn runs_programs(&self) -> bool {
        false
    }

    /// Runs nothing: any job that is one succeeds, and prints what it would have run.
    async fn run(&self, job: &JobSpec) -> Result<JobResult, SandboxError> {
        job.check()?;
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let mut stdout = Captured::keeping(job.limits.kept_bytes);
        stdout.push(format!("{} not run by the mock\n", job.argv.join(" ")).as_bytes());
        Ok(JobResult {
            provider: self.name(),
            ended: Ended::Exited(0),
            stdout,
            stderr: Captured::keeping(job.limits.kept_bytes),
            files: Vec::new(),
            workspace: None,
            told: None,
            skipped: Vec::new(),
            limits: job.limits,
            enforced: BTreeMap::new(),
            usage: Usage::default(),
        })
    }

    async fn execute(&self, job: &Job<'_>) -> Result<ToolOutcome, SandboxError> {
        let ToolCall { name, args, .. } = job.call;
        let invalid = |reason: String| SandboxError::InvalidCall {
            tool: name.clone(),
            reason,
        };
        let script = script_of(args.get("mock")).map_err(invalid)?;
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if let Some(ScriptedError { code, retryable }) = script.error {
            let tool = name.clone();
            return Err(SandboxError::Scripted {
                tool,
                code,
                transient: retryable,
            });
        }
        let canonical = canonical_json(&json!({"name": name, "args": args, "seed": job.seed}));
        let hash = sha256_hex(canonical.as_bytes());
        let short = &hash[..12];
        let files = script.files.unwrap_or_else(|| {
            let content = canonical_json(&json!({"job": hash, "seed": job.seed, "tool": name}));
            BTreeMap::from([("result.json".to_owned(), content)])
        });
        let result = ToolResult {
            provider: self.name().to_owned(),
            exit_code: script.exit_code.unwrap_or(0),
            stdout: script
                .stdout
                .unwrap_or_else(|| format!("{name} done by the mock, job {short}\n")),
            stderr: script.stderr.unwrap_or_default(),
            files: files.into_iter().map(file).collect(),
            reason: None,
            report: None,
            workspace: None,
        };
        // A script can ask for what must never be stored, a NUL for instance.
        encode(&result).map_err(|error| invalid(format!("args.mock asks for an {error}")))?;
        Ok(ToolOutcome {
            result,
            workspace: None,
        })
    }
}

fn script_of(value: Option<&Value>) -> Result<Script, String> {
    let Some(value) = value else {
        return Ok(Script::default());
    };
    if !value.is_object() {
        return Err("args.mock must be object".to_owned());
    }
    let script = Script::deserialize(value).map_err(|error| format!("args.mock: {error}"))?;
    let alone = matches!(value, Value::Object(members) if members.len() == 1);
    if let Some(ScriptedError { code, .. }) = &script.error {
        if !alone {
            return Err("args.mock: error stands alone".to_owned());
        }
        if code.is_empty() {
            return Err("args.mock: error.code must not be empty".to_owned());
        }
    }
    Ok(script)
}

fn file((name, content): (String, String)) -> ToolFile {
    ToolFile {
        sha256: sha256_hex(content.as_bytes()),
        name,
        content: Some(content),
        size: None,
        encoding: None,
        executable: None,
        stored: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grant, Limits, SecretFolder};

    crate::for_every_sandbox!(MockSandbox::new());

    async fn run(
        name: &str,
        args: Value,
        seed: u64,
        key: &str,
    ) -> Result<ToolResult, SandboxError> {
        let call = ToolCall {
            name: name.to_owned(),
            args: args.as_object().unwrap().clone(),
            ..ToolCall::default()
        };
        let job = Job {
            call: &call,
            idempotency_key: key,
            seed,
            workspace: None,
            files: &[],
            secrets: Grant {
                folder: &SecretFolder::default(),
                names: &[],
            },
            most: &Limits::most(),
        };
        let outcome = MockSandbox::new().execute(&job).await?;
        assert!(outcome.workspace.is_none());
        Ok(outcome.result)
    }

    async fn scripted(script: Value) -> Result<ToolResult, SandboxError> {
        run("t", json!({"mock": script}), 1, "k").await
    }

    #[tokio::test]
    async fn an_ordinary_call_succeeds_and_names_itself() {
        let args = json!({"path": "README.md"});
        let result = run("repo.change", args, 424_242, "run_1/tool-001")
            .await
            .unwrap();
        let canonical = r#"{"args":{"path":"README.md"},"name":"repo.change","seed":424242}"#;
        let hash = sha256_hex(canonical.as_bytes());
        assert_eq!(result.provider, "mock");
        assert_eq!(result.exit_code, 0);
        let line = format!("repo.change done by the mock, job {}\n", &hash[..12]);
        assert_eq!(result.stdout, line);
        assert_eq!(result.stderr, "");
        assert_eq!(result.files.len(), 1);
        let file = &result.files[0];
        assert_eq!(file.name, "result.json");
        let content = format!(r#"{{"job":"{hash}","seed":424242,"tool":"repo.change"}}"#);
        assert_eq!(file.sha256, sha256_hex(content.as_bytes()));
        assert_eq!(file.content, Some(content));
    }

    #[tokio::test]
    async fn the_result_depends_on_name_arguments_and_seed_alone() {
        let base = run("t", json!({"a": 1, "b": 2}), 1, "k").await.unwrap();
        let same = run("t", json!({"b": 2, "a": 1}), 1, "another key")
            .await
            .unwrap();
        assert_eq!(base, same);
        for other in [
            run("u", json!({"a": 1, "b": 2}), 1, "k").await.unwrap(),
            run("t", json!({"a": 1, "b": 3}), 1, "k").await.unwrap(),
            run("t", json!({"a": 1, "b": 2}), 2, "k").await.unwrap(),
        ] {
            assert_ne!(base, other);
        }
    }

    #[tokio::test]
    async fn a_script_decides_what_it_names_and_nothing_else() {
        let failed = scripted(json!({"exitCode": 3, "stderr": "no\n"}))
            .await
            .unwrap();
        assert_eq!((failed.exit_code, failed.stderr.as_str()), (3, "no\n"));
        assert!(failed.stdout.starts_with("t done"));
        assert_eq!(failed.files[0].name, "result.json");

        let files = scripted(json!({"stdout": "", "files": {"b": "2", "a": "1"}}))
            .await
            .unwrap();
        assert_eq!(files.stdout, "");
        let names: Vec<_> = files.files.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(files.files[0].sha256, sha256_hex(b"1"));

        let empty = scripted(json!({"files": {}})).await.unwrap();
        assert_eq!(empty.files, []);
    }

    #[tokio::test]
    async fn a_scripted_error_has_the_code_and_the_retryability_that_were_asked_for() {
        for retryable in [true, false] {
            let script = json!({"error": {"code": "sandbox_timeout", "retryable": retryable}});
            let error = scripted(script).await.unwrap_err();
            assert_eq!(error.code(), "sandbox_timeout");
            assert_eq!(error.is_transient(), retryable);
        }
    }

    #[tokio::test]
    async fn a_script_of_the_wrong_shape_is_an_invalid_call() {
        for script in [
            json!(null),
            json!([1]),
            json!("fail"),
            json!({"exitcode": 1}),
            json!({"exitCode": "1"}),
            json!({"exitCode": 2_147_483_648_i64}),
            json!({"stdout": 1}),
            json!({"stdout": "\0"}),
            json!({"files": ["a"]}),
            json!({"files": {"a": 1}}),
            json!({"files": {"": "x"}}),
            json!({"error": {"code": "c"}}),
            json!({"error": {"code": "", "retryable": true}}),
            json!({"error": {"code": "c", "retryable": true}, "exitCode": 1}),
        ] {
            let error = scripted(script.clone()).await.unwrap_err();
            assert_eq!(error.code(), "sandbox_invalid_call", "{script}");
            assert!(!error.is_transient());
            assert!(
                error
                    .to_string()
                    .starts_with("tool call \"t\" is invalid: args.mock"),
                "{error}"
            );
        }
    }
}
