//! Every `mise` task says what it is for and needs only tasks that exist, and none is cached: a cached task that resets
//! a database or talks to a server would say "up to date" of a world that it never looked at.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{assert_clean, texts};

/// The tasks by name, of `mise.toml` and of the files below `mise-tasks`, whose settings are in `#MISE` lines.
fn tasks(files: &[(String, String)]) -> BTreeMap<String, Table> {
    let mut tasks = BTreeMap::new();
    for (name, text) in files {
        if name == "mise.toml" {
            let config: Table = text.parse().unwrap();
            for (name, task) in config["tasks"].as_table().unwrap() {
                tasks.insert(name.clone(), task.as_table().unwrap().clone());
            }
        } else {
            let settings = text.lines().filter_map(|line| line.strip_prefix("#MISE "));
            let settings: Vec<&str> = settings.collect();
            let name = name.trim_start_matches("mise-tasks/").replace('/', ":");
            let name = name.trim_end_matches(":_default").to_owned();
            tasks.insert(name, settings.join("\n").parse().unwrap());
        }
    }
    tasks
}

/// The tasks that a setting names: `"db:up"`, `"db:up --quick"` and `["db:up", "--quick"]` all mean `db:up`.
fn named(task: &Table, setting: &str) -> Vec<String> {
    let several = task.get(setting).and_then(Value::as_array);
    let several = several.into_iter().flatten().filter_map(|one| {
        let first = one.as_array().and_then(|it| it.first());
        let step = one.get("task");
        let text = first.or(step).unwrap_or(one).as_str()?;
        text.split_whitespace().next().map(str::to_owned)
    });
    several.collect()
}

fn judge(files: &[(String, String)]) -> Vec<String> {
    let tasks = tasks(files);
    let mut findings = Vec::new();
    for (name, task) in &tasks {
        let description = task.get("description").and_then(Value::as_str);
        if description.is_none_or(|text| text.trim().is_empty()) {
            findings.push(format!("task {name}: has no description"));
        }
        if task.contains_key("sources") || task.contains_key("outputs") {
            findings.push(format!(
                "task {name}: has sources or outputs: mise would not run it again"
            ));
        }
        let steps = task.get("run").and_then(Value::as_array);
        let steps = steps.into_iter().flatten().filter(|step| step.is_table());
        let steps = Table::from_iter([("run".to_owned(), Value::Array(steps.cloned().collect()))]);
        for needed in ["depends", "depends_post", "wait_for"]
            .iter()
            .flat_map(|setting| named(task, setting))
            .chain(named(&steps, "run"))
        {
            if !tasks.contains_key(&needed) {
                findings.push(format!("task {name}: names {needed}, which is no task"));
            }
        }
    }
    findings
}

#[test]
fn every_task_is_described_needs_tasks_that_exist_and_is_never_cached() {
    let files = texts(|name| name == "mise.toml" || name.starts_with("mise-tasks/"));
    assert!(tasks(&files).len() > 50, "too few tasks were found");
    assert_clean(&judge(&files));
}

#[test]
fn a_task_without_a_description_or_with_a_cache_or_a_need_that_is_no_task_is_found() {
    let of = |file: &str, text: &str| judge(&[(file.to_owned(), text.to_owned())]);
    for (text, found) in [
        ("[tasks.a]\nrun = 'x'", "a: has no description"),
        ("[tasks.a]\ndescription = ' '", "a: has no description"),
        (
            "[tasks.a]\ndescription = 'd'\nsources = ['x']",
            "a: has sources",
        ),
        (
            "[tasks.a]\ndescription = 'd'\noutputs = { auto = true }",
            "a: has sources",
        ),
        (
            "[tasks.a]\ndescription = 'd'\ndepends = [['b', 'x']]",
            "a: names b",
        ),
        (
            "[tasks.a]\ndescription = 'd'\nwait_for = ['b --now']",
            "a: names b",
        ),
        (
            "[tasks.a]\ndescription = 'd'\nrun = ['x', { task = 'b' }]",
            "a: names b",
        ),
    ] {
        let findings = of("mise.toml", text);
        assert!(
            findings.len() == 1 && findings[0].contains(found),
            "{text}: {findings:?}"
        );
    }
    let script = "#!/usr/bin/env bash\n#MISE description=\"d\"\n#MISE depends=[\"b\"]\n#MISE sources=[\"x\"]\n";
    assert_eq!(of("mise-tasks/db/_default", script).len(), 2);
    assert_clean(&of(
        "mise.toml",
        "[tasks.a]\ndescription = 'd'\nrun = ['x y', 'z']",
    ));
}
