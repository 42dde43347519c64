//! Every `mise` task is described, and no task is cached that must run each time it is asked to.
//!
//! A cached task that resets a database or talks to a server would say "up to date" of a world that it never looked
//! at. Which tasks these are follows from what they run and from what they depend on, not from a list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::{Finding, Verdict};
use crate::repository::Repository;

/// A task as `mise tasks ls --json` shows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Task {
    name: String,
    description: String,
    depends: Vec<Value>,
    depends_post: Vec<Value>,
    run: Vec<Value>,
    /// The script of a file task.
    file: Option<PathBuf>,
    sources: Vec<String>,
    /// A list, or `{"auto": true}`.
    outputs: Value,
    /// Not of this repository, but of whoever runs this.
    global: bool,
}

pub(super) fn check(repository: &Repository) -> anyhow::Result<Verdict> {
    let listed = repository.output(
        Command::new(repository.root().join("bin/mise"))
            .args(["tasks", "ls", "--json", "--hidden"]),
    )?;
    let mut tasks: Vec<Task> =
        serde_json::from_str(&listed).context("reading what mise says of its tasks")?;
    tasks.retain(|task| !task.global);
    anyhow::ensure!(!tasks.is_empty(), "mise knows no tasks here");
    // What a file task runs is in its file.
    for task in &mut tasks {
        if let Some(file) = &task.file {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            task.run.push(Value::String(text));
        }
    }
    Ok(Verdict {
        looked_at: format!(
            "{} tasks, {} of them never cached because of what they do",
            tasks.len(),
            Tasks::new(&tasks).all_stateful().len()
        ),
        findings: judge(&tasks, repository.root()),
    })
}

fn judge(tasks: &[Task], root: &Path) -> Vec<Finding> {
    let graph = Tasks::new(tasks);
    let stateful = graph.all_stateful();
    let mut findings = Vec::new();
    for task in tasks {
        let mut find =
            |text: String| findings.push(Finding::new(format!("task {}", task.name), text));
        if task.description.trim().is_empty() {
            find("has no description".into());
        }
        for needed in task.needs() {
            if !graph.by_name.contains_key(needed.as_str()) {
                find(format!("needs {needed}, which is no task"));
            }
        }
        if !task.is_cached() {
            continue;
        }
        if let Some(why) = stateful.get(task.name.as_str()) {
            find(format!(
                "is cached by its sources or outputs, but {why}: it must run every time"
            ));
        }
        if task.sources.is_empty() {
            find("has outputs but no sources: it would never run again".into());
        }
        for pattern in task.sources.iter().filter(|text| !text.starts_with('!')) {
            if !matches_a_file(root, pattern) {
                find(format!(
                    "its source {pattern} matches no file: no change would make it run"
                ));
            }
        }
    }
    findings
}

fn matches_a_file(root: &Path, pattern: &str) -> bool {
    let whole = root.join(pattern);
    glob::glob(&whole.to_string_lossy()).is_ok_and(|mut paths| paths.any(|path| path.is_ok()))
}

impl Task {
    fn is_cached(&self) -> bool {
        let outputs = match &self.outputs {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        outputs || !self.sources.is_empty()
    }

    /// What it runs, line by line, without comments.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.run
            .iter()
            .filter_map(Value::as_str)
            .flat_map(str::lines)
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
    }

    /// The tasks that it makes run: declared, as a step of `run`, or by calling mise.
    fn needs(&self) -> Vec<String> {
        let mut needs = Vec::new();
        for declared in self.depends.iter().chain(&self.depends_post) {
            needs.extend(first_word(declared));
        }
        for step in &self.run {
            needs.extend(step.get("task").and_then(first_word));
            let several = step.get("tasks").and_then(Value::as_array);
            needs.extend(several.into_iter().flatten().filter_map(first_word));
        }
        for line in self.lines() {
            let words: Vec<&str> = words(line).collect();
            for (index, word) in words.iter().enumerate() {
                if program(word) == "mise" && words.get(index + 1) == Some(&"run") {
                    let mut names = words[index + 2..]
                        .iter()
                        .filter(|word| !word.starts_with('-'));
                    // A name that is only known at run time cannot be followed.
                    needs.extend(
                        names
                            .next()
                            .filter(|name| !name.contains('$'))
                            .map(|name| (*name).to_owned()),
                    );
                }
            }
        }
        needs
    }

    /// Why it must run every time, by what it runs itself and what it is called.
    fn own_state(&self) -> Option<String> {
        if let Some(part) = self.name.split(':').find(|part| {
            matches!(
                *part,
                "reset" | "down" | "refresh" | "soak" | "live" | "chaos"
            )
        }) {
            return Some(format!("its name says {part}"));
        }
        // What installs a tool fetches it, and changes nothing that a cache could hide.
        let installs = self.name.ends_with(":ensure");
        self.lines().find_map(|line| {
            let words: Vec<&str> = words(line).collect();
            words.iter().enumerate().find_map(|(index, word)| {
                let next = words.get(index + 1).copied().unwrap_or_default();
                (talks(program(word), next) && !(installs && fetches(program(word)))).then(|| {
                    format!("it runs {} {next}", program(word))
                        .trim()
                        .to_owned()
                })
            })
        })
    }
}

/// Whether a command starts a server, talks to one or resets something. Of the repository's own programs only those
/// verbs are free that are known to be pure: a new verb has to be named here, not the other way round.
fn talks(program: &str, next: &str) -> bool {
    match program {
        "kodo" => !matches!(next, "--version" | "--help"),
        "kodo-dev" => !matches!(next, "policy" | "--version" | "--help"),
        "cargo" => next == "bench",
        "psql" | "psql-app.sh" | "psql-sys.sh" | "pg_ctl" | "pg_isready" | "initdb" | "docker"
        | "nc" | "systemctl" => true,
        _ => fetches(program),
    }
}

/// Whether a program gets things from elsewhere.
fn fetches(program: &str) -> bool {
    matches!(program, "curl" | "npm" | "npx" | "pip" | "pip3")
}

/// The words of a shell line, roughly: quotes, separators and substitutions end a word.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|sign: char| sign.is_whitespace() || "'\"`();|&<>{}".contains(sign))
        .filter(|word| !word.is_empty())
}

fn program(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// `"db:up"`, `"db:up --quick"` and `["db:up", "--quick"]` all mean `db:up`.
fn first_word(value: &Value) -> Option<String> {
    let text = match value {
        Value::Array(list) => list.first()?.as_str()?,
        Value::Object(fields) => fields.get("task")?.as_str()?,
        other => other.as_str()?,
    };
    text.split_whitespace().next().map(str::to_owned)
}

/// The tasks by name, to follow what they need.
struct Tasks<'a> {
    by_name: BTreeMap<&'a str, &'a Task>,
}

impl<'a> Tasks<'a> {
    fn new(tasks: &'a [Task]) -> Self {
        Self {
            by_name: tasks
                .iter()
                .map(|task| (task.name.as_str(), task))
                .collect(),
        }
    }

    /// Every task that must run each time, with the reason: its own, or that of one that it needs.
    fn all_stateful(&self) -> BTreeMap<&'a str, String> {
        let mut found: BTreeMap<&str, String> = self
            .by_name
            .values()
            .filter_map(|task| Some((task.name.as_str(), task.own_state()?)))
            .collect();
        loop {
            let next: Vec<(&str, String)> = self
                .by_name
                .values()
                .filter(|task| !found.contains_key(task.name.as_str()))
                .filter_map(|task| {
                    let needs = task.needs();
                    let need = needs
                        .iter()
                        .find(|need| found.contains_key(need.as_str()))?;
                    Some((task.name.as_str(), format!("it needs {need}")))
                })
                .collect();
            if next.is_empty() {
                return found;
            }
            found.extend(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tasks(list: Value) -> Vec<Task> {
        serde_json::from_value(list).unwrap()
    }

    fn findings(list: Value) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        judge(&tasks(list), root)
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn a_cached_database_is_found() {
        for cache in [
            json!({"sources": ["Cargo.toml"]}),
            json!({"outputs": {"auto": true}}),
        ] {
            let mut task =
                json!({"name": "db:up", "description": "d", "run": ["scripts/kodo db up"]});
            task.as_object_mut()
                .unwrap()
                .extend(cache.as_object().unwrap().clone());
            let found = findings(json!([task]));
            assert!(
                found[0].starts_with(
                    "task db:up: is cached by its sources or outputs, but it runs kodo db"
                ),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_a_task_needs_counts_as_its_own() {
        let found = findings(json!([
            {"name": "up", "description": "d", "run": ["exec scripts/kodo db up"]},
            {"name": "middle", "description": "d", "depends": [["up", "x"]]},
            {"name": "posted", "description": "d", "depends_post": ["middle --now"], "sources": ["Cargo.toml"]},
            {"name": "step", "description": "d", "run": ["true", {"tasks": ["middle"]}], "sources": ["Cargo.toml"]},
            {"name": "call", "description": "d", "run": ["x=$(bin/mise run -q middle)"], "sources": ["Cargo.toml"]},
            {"name": "free", "description": "d", "run": ["echo kodo-like"], "sources": ["Cargo.toml"], "outputs": ["o"]},
        ]));
        assert_eq!(found.len(), 3, "{found:?}");
        for name in ["posted", "step", "call"] {
            let expected =
                format!("task {name}: is cached by its sources or outputs, but it needs middle");
            assert!(
                found.iter().any(|text| text.starts_with(&expected)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_called_a_reset_or_a_soak_is_never_cached() {
        for name in ["db:sys:reset", "test:unit:soak", "oc:live:smoke", "db:down"] {
            let found = findings(json!([
                {"name": name, "description": "d", "run": ["true"], "sources": ["Cargo.toml"]}
            ]));
            assert_eq!(found.len(), 1, "{name}: {found:?}");
        }
    }

    #[test]
    fn a_tool_that_nobody_declared_pure_is_taken_for_one_that_talks() {
        let cached = |run: &str| {
            findings(
                json!([{"name": "x", "description": "d", "run": [run], "sources": ["Cargo.toml"]}]),
            )
            .len()
        };
        for run in [
            "scripts/kodo-dev course",
            "exec \"$root\"/target/debug/kodo serve",
            "scripts/cargo bench -p kodo",
            "curl -f http://127.0.0.1",
        ] {
            assert_eq!(cached(run), 1, "{run}");
        }
        for run in [
            "scripts/kodo-dev policy size",
            "scripts/kodo --version",
            "# scripts/kodo serve",
            "scripts/cargo doc",
        ] {
            assert_eq!(cached(run), 0, "{run}");
        }
    }

    #[test]
    fn an_installer_may_fetch_and_what_needs_it_may_be_cached() {
        let found = findings(json!([
            {"name": "rust:ensure", "description": "d", "run": ["curl -o x https://example.org"]},
            {"name": "doc", "description": "d", "depends": ["rust:ensure"], "run": ["true"], "sources": ["Cargo.toml"]},
        ]));
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn every_task_says_what_it_is_for_and_names_tasks_that_exist() {
        let found = findings(json!([
            {"name": "silent", "description": " ", "run": ["true"]},
            {"name": "lost", "description": "d", "depends": ["nowhere"]},
        ]));
        assert_eq!(
            found,
            [
                "task silent: has no description",
                "task lost: needs nowhere, which is no task"
            ]
        );
    }

    #[test]
    fn a_cache_without_a_source_that_exists_would_be_for_ever() {
        let found = findings(json!([
            {"name": "a", "description": "d", "run": ["true"], "outputs": ["o"]},
            {"name": "b", "description": "d", "run": ["true"], "sources": ["src/**/*.rs", "no/such/*.rs", "!x"]},
        ]));
        assert_eq!(
            found,
            [
                "task a: has outputs but no sources: it would never run again",
                "task b: its source no/such/*.rs matches no file: no change would make it run",
            ]
        );
    }
}
