//! The page itself, without running it: it can be read, is complete, and speaks of tasks that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kodo_dev::course::{COURSE, Course, Kind};

fn checkout() -> PathBuf {
    kodo_dev::course::find_checkout(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn course() -> Course {
    Course::parse(&std::fs::read_to_string(checkout().join(COURSE)).unwrap()).unwrap()
}

/// The names of all `mise` tasks: those of mise.toml, and the files below mise-tasks.
fn tasks() -> BTreeSet<String> {
    let config = std::fs::read_to_string(checkout().join("mise.toml")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    let mut tasks: BTreeSet<String> = config["tasks"]
        .as_table()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let root = checkout().join("mise-tasks");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                tasks.insert(name.replace('/', ":"));
            }
        }
    }
    tasks
}

/// The tasks that a text runs: the word after `mise run` and its flags.
fn named(text: &str) -> Vec<String> {
    let of = |rest: &str| {
        let task = rest
            .split_whitespace()
            .find(|word| !word.starts_with('-'))?;
        let name = task.trim_end_matches(|end: char| !end.is_ascii_alphanumeric());
        (!name.is_empty() && name.starts_with(|first: char| first.is_ascii_lowercase()))
            .then(|| name.to_owned())
    };
    text.split("mise run ").skip(1).filter_map(of).collect()
}

#[test]
fn every_walkthrough_is_there() {
    let course = course();
    let mut names: Vec<String> = ('A'..='J')
        .map(|letter| format!("Walkthrough {letter}"))
        .collect();
    names.extend(["Fast path", "Triage matrix", "Completion bar"].map(str::to_owned));
    let mut last = 0;
    for name in names {
        let sections = course
            .select(std::slice::from_ref(&name))
            .unwrap_or_else(|error| panic!("{error}"));
        let section = sections
            .iter()
            .find(|section| section.title.starts_with(&name))
            .unwrap();
        assert!(
            section.line > last || name == "Fast path",
            "{name} is out of order"
        );
        last = if name == "Fast path" { 0 } else { section.line };
        let runs = |section: &&kodo_dev::course::Section| {
            section
                .blocks
                .iter()
                .any(|block| matches!(block.kind, Kind::Run(_)))
        };
        assert!(sections.iter().any(runs), "{name} runs nothing");
    }
}

#[test]
fn every_walkthrough_says_what_it_proves_what_it_does_not_and_how_to_read_it() {
    let page = std::fs::read_to_string(checkout().join(COURSE)).unwrap();
    let sections: Vec<&str> = page
        .split("\n## ")
        .filter(|section| section.starts_with("Walkthrough "))
        .collect();
    assert!(sections.len() >= 10);
    for section in sections {
        let title = section.lines().next().unwrap_or_default();
        let flowing = section.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["**Proves:**", "**Does not prove:**", "**Read it so:**"] {
            assert!(flowing.contains(words), "{title} lacks {words}");
        }
    }
}

#[test]
fn every_task_that_it_names_exists() {
    let page = std::fs::read_to_string(checkout().join(COURSE)).unwrap();
    let (named, tasks): (BTreeSet<String>, _) = (named(&page).into_iter().collect(), tasks());
    assert!(named.len() > 15, "only {named:?}");
    let missing: Vec<&String> = named.difference(&tasks).collect();
    assert!(
        missing.is_empty(),
        "{COURSE} runs tasks that do not exist: {missing:?}"
    );
}

#[test]
fn names_of_tasks_are_found_in_commands_and_prose() {
    let text = "PORT=1 bin/mise run -f wf:crashdemo\n`mise run …` and `bin/mise run check`, (`mise run a:b`).";
    assert_eq!(named(text), ["wf:crashdemo", "check", "a:b"]);
}

#[test]
fn what_the_completion_bar_repeats_is_not_written_down_twice() {
    let course = course();
    let bar = course.select(&["Completion bar".to_owned()]).unwrap();
    for section in bar.iter().filter(|section| !section.blocks.is_empty()) {
        assert!(
            section.level > 2,
            "{} is a claim, so it stands below the bar's heading",
            section.title
        );
        for block in &section.blocks {
            assert_eq!(
                block.code.lines().count(),
                1,
                "line {}: the bar runs tasks, it has no commands of its own",
                block.line
            );
        }
    }
}
