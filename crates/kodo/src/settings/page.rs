//! `docs/configuration.md`, written from the settings themselves.

use std::fmt::Write as _;
use std::path::Path;

use clap::Arg;

use super::given::{arguments, variable_of};
use crate::environment;

/// The page's beginning; tables of the settings follow.
const HEAD: &str = "\
# Configuration

Each setting is an environment variable and a flag of every command of `kodo`. A flag wins over the variable, which wins
over the default. An empty variable counts as one that is not set. A value that cannot be used stops the start with one
line that names the setting, the value and what is accepted; `kodo doctor` reports all of them, and goes on.
`kodo serve --help` shows this list, too.

This page is written from the settings by `bin/mise run test:golden:refresh`.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut heading = "";
    let arguments = arguments();
    for setting in arguments.get_arguments() {
        let of = setting.get_help_heading().unwrap_or_default();
        if of != heading {
            heading = of;
            let _ = write!(
                page,
                "\n## {heading}\n\n| variable, flag | default | meaning |\n|---|---|---|\n"
            );
        }
        page.push_str(&row(setting));
    }
    page
}

fn row(setting: &Arg) -> String {
    let default = setting.get_default_values().first();
    let default = default.map(|value| value.to_string_lossy());
    let default = match default.as_deref() {
        None | Some("") => "not set".to_owned(),
        Some(default) => format!("`{default}`"),
    };
    let mut meaning = setting
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let words = setting.get_possible_values();
    if !words.is_empty() {
        let words: Vec<String> = words
            .iter()
            .map(|word| match word.get_help() {
                Some(help) => format!("`{}` ({help})", word.get_name()),
                None => format!("`{}`", word.get_name()),
            })
            .collect();
        let _ = write!(meaning, ": {}", words.join(", "));
    }
    format!(
        "| `{}`, `--{}` | {default} | {} |\n",
        variable_of(setting),
        setting.get_long().unwrap_or_default(),
        meaning.replace('|', "\\|")
    )
}

#[test]
fn the_page_is_what_the_settings_say() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if environment::variable("KODO_GOLDEN_REFRESH").is_some() {
        std::fs::write(&place, page()).unwrap();
    }
    let written = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(
        written == page(),
        "docs/configuration.md is not what the settings say; `bin/mise run test:golden:refresh` writes it"
    );
}
