//! `kodo oc verify`

use std::process::ExitCode;

use anyhow::ensure;
use kodo_planner::{DEFAULT_KEY, FixtureFolder, PROMPT_VERSION};
use serde_json::json;

use super::{Printed, outline, recorder};
use crate::cli::Format;
use crate::output;
use crate::settings::Settings;
use crate::table::render;

/// Reads every fixture as replay would.
pub(crate) async fn run(settings: &Settings, format: Format) -> anyhow::Result<Printed> {
    let dir = settings.planner.folder()?;
    let folder = FixtureFolder::new(dir.clone());
    let keys = folder.keys()?;
    ensure!(!keys.is_empty(), "{} holds no fixture", dir.display());
    let mut rows = Vec::new();
    let mut wrong = 0;
    for key in &keys {
        let (verdict, recorded, answer) = match folder.load(key).await {
            Ok(Some(_)) if !is_name(key) => (
                "wrong",
                "-".to_owned(),
                format!("its name is neither 64 hex digits nor {DEFAULT_KEY}"),
            ),
            Ok(Some(fixture)) => {
                let outdated = fixture
                    .recorded
                    .as_ref()
                    .is_some_and(|by| by.prompt_version != PROMPT_VERSION);
                let note = match outdated {
                    true => "; recorded with other words, `kodo oc record` asks again",
                    false => "",
                };
                ("ok", recorder(&fixture), outline(&fixture) + note)
            }
            Ok(None) => ("wrong", "-".to_owned(), "it is gone".to_owned()),
            Err(error) => ("wrong", "-".to_owned(), error.to_string()),
        };
        wrong += usize::from(verdict == "wrong");
        rows.push(vec![key.clone(), verdict.to_owned(), recorded, answer]);
    }
    let code = match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    let text = match format {
        Format::Table => {
            let summary = format!("{} fixtures, {wrong} wrong\n", rows.len());
            render(&["KEY", "VERDICT", "RECORDED", "ANSWER"], &rows) + &summary
        }
        Format::Json => {
            let fixtures: Vec<_> = rows
                .iter()
                .map(|row| json!({"key": row[0], "ok": row[1] == "ok", "recorded": row[2], "answer": row[3]}))
                .collect();
            let report = json!({"ok": wrong == 0, "fixtures": fixtures});
            output::json(&report)
        }
    };
    Ok(Printed::new(text, code))
}

fn is_name(key: &str) -> bool {
    key == DEFAULT_KEY
        || key.len() == 64
            && key
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
