//! `kodo oc show QUESTION`

use std::process::ExitCode;

use kodo_planner::{DEFAULT_KEY, FixtureFolder};
use serde_json::json;

use super::question::Question;
use super::{Printed, outline, recorder};
use crate::cli::Format;
use crate::commands::NOT_FOUND;
use crate::output;
use crate::settings::Settings;

/// The fixture that replay would answer with, and which one that is.
pub(crate) async fn run(
    settings: &Settings,
    question: &str,
    format: Format,
) -> anyhow::Result<Printed> {
    let folder = FixtureFolder::new(settings.planner.folder()?);
    let question = Question::read(question, &folder)?;
    let key = question.key(settings);
    let mut found = folder.load(&key).await?;
    // An intent without a fixture of its own is answered by the default one; a key is that key.
    if found.is_none() && matches!(question, Question::Intent(_)) {
        found = folder.load(DEFAULT_KEY).await?;
    }
    let Some(fixture) = found else {
        output::tell(format_args!(
            "kodo: no fixture {}; `kodo oc verify` shows those there are, `kodo oc record` makes one",
            folder.path_of(&key).display()
        ));
        return Ok(Printed::new(String::new(), ExitCode::from(NOT_FOUND)));
    };
    let is_default = fixture.key != key;
    let path = folder.path_of(&fixture.key);
    let text = match format {
        Format::Json => {
            let fixture: serde_json::Value = serde_json::from_str(&fixture.to_text()?)?;
            let shown = json!({
                "key": key, "path": path.display().to_string(), "isDefault": is_default, "fixture": fixture,
            });
            output::json(&shown)
        }
        Format::Table => {
            let answered_by = match is_default {
                true => "the default fixture: there is none with this key",
                false => "the fixture with this key",
            };
            let asked = match fixture.question() {
                Ok(Some((intent, seed))) => format!("{} (seed {seed})", intent.goal),
                _ => "-".to_owned(),
            };
            let lines = [
                ("key", key),
                ("answer", answered_by.to_owned()),
                ("path", path.display().to_string()),
                ("goal", asked),
                ("recorded", recorder(&fixture)),
                ("outline", outline(&fixture)),
            ];
            let text: String = lines
                .iter()
                .map(|(name, value)| format!("{name:<10}{value}\n"))
                .collect();
            text + &output::json(&fixture.answer_json()?)
        }
    };
    Ok(Printed::new(text, ExitCode::SUCCESS))
}
