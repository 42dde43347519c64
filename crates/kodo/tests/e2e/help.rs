//! What `kodo` says about itself, found by asking it, as a person would: from the top down.

use std::collections::BTreeMap;

use crate::goldens::Shown;
use crate::program::kodo;

/// Width of the terminal that there is not.
const COLUMNS: &str = "100";

/// The help of every command, short and long (once, if they are the same), a file a command.
pub async fn all() -> Vec<Shown> {
    let mut texts = BTreeMap::new();
    let mut to_ask = vec![Vec::<String>::new()];
    while let Some(command) = to_ask.pop() {
        let short = help(&command, "-h").await;
        let long = help(&command, "--help").await;
        for name in subcommands(&short) {
            let mut sub = command.clone();
            sub.push(name);
            to_ask.push(sub);
        }
        let file = [&["kodo".to_owned()], command.as_slice()]
            .concat()
            .join("-");
        let text = match without_first_line(&short) == without_first_line(&long) {
            true => long,
            false => format!("{short}\n{}", without_settings(&long)),
        };
        texts.insert(format!("{file}.txt"), text);
    }
    // Something at each depth, so that help which reads differently does not make for fewer goldens.
    for known in [
        "kodo.txt",
        "kodo-serve.txt",
        "kodo-db.txt",
        "kodo-db-up.txt",
        "kodo-demo-crash.txt",
    ] {
        assert!(texts.contains_key(known), "{known} in {:?}", texts.keys());
    }
    vec![Shown::Folder(texts)]
}

/// A help without its command line.
fn without_first_line(help: &str) -> &str {
    help.split_once('\n').map_or("", |(_, rest)| rest)
}

/// The long help of `serve` without the settings, so that a new one changes no golden: `docs/configuration.md` has them.
fn without_settings(help: &str) -> String {
    match help.split_once("\nHTTP:\n") {
        Some((commands, settings)) => {
            for known in ["--port <PORT>", "[env: API_TOKEN]", "--log-format <FORMAT>"] {
                assert!(settings.contains(known), "{known} in {settings}");
            }
            format!("{commands}\n[the settings, as in docs/configuration.md]\n")
        }
        None => help.to_owned(),
    }
}

/// The command line and what it prints. It must succeed, and say nothing on stderr.
async fn help(command: &[String], flag: &str) -> String {
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    arguments.push(flag);
    let ended = kodo(&arguments, &[("COLUMNS", COLUMNS)]).await;
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{arguments:?}"
    );
    format!("$ kodo {}\n{}", arguments.join(" "), ended.stdout)
}

/// The names that a help text lists below `Commands:`; `help` itself is none of ours.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let name = line.strip_prefix("  ")?;
            // A description that goes on is indented further.
            let name = (!name.starts_with(' ')).then(|| name.split_whitespace().next())??;
            (name != "help").then(|| name.to_owned())
        })
        .collect()
}
