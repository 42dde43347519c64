//! `kodo oc diff A [B]`

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use kodo_contract::{canonical_json, parse_json};
use kodo_planner::{DEFAULT_KEY, Fixture, FixtureFolder, PlanRequest, fresh};
use serde_json::Value;
use similar::TextDiff;

use super::Printed;
use super::question::{Question, asked};
use crate::planner;
use crate::settings::Settings;

/// Compares what two fixtures answer, or one and the model.
pub(crate) async fn run(settings: &Settings, a: &str, b: Option<&str>) -> anyhow::Result<Printed> {
    let folder = FixtureFolder::new(settings.planner.folder()?);
    let one = fixture(settings, &folder, a).await?;
    let (other, other_name) = match b {
        Some(b) => (fixture(settings, &folder, b).await?, b.to_owned()),
        None => {
            let live = planner::live(settings).await?;
            let (intent, seed) = asked(&one)?;
            let request = PlanRequest {
                intent: &intent,
                seed,
                idempotency_key: &format!("diff/{}", one.key),
            };
            let name = format!("{}, just now", live.model());
            (fresh(&*live, &request).await?, name)
        }
    };
    let (old, new) = (lines(&one)?, lines(&other)?);
    if old == new {
        return Ok(Printed::new(String::new(), ExitCode::SUCCESS));
    }
    let diff = TextDiff::from_lines(&old, &new);
    let text = diff.unified_diff().header(a, &other_name).to_string();
    Ok(Printed::new(text, ExitCode::FAILURE))
}

/// A fixture by its question, or by its own file.
async fn fixture(
    settings: &Settings,
    folder: &FixtureFolder,
    name: &str,
) -> anyhow::Result<Fixture> {
    let path = Path::new(name);
    if path.is_file()
        && let Some(key) = key_in(path)?
    {
        return Ok(Fixture::read(&std::fs::read(path)?, &key, path)?);
    }
    let key = Question::read(name, folder)?.key(settings);
    match folder.load(&key).await? {
        Some(fixture) => Ok(fixture),
        None => bail!("no fixture {}", folder.path_of(&key).display()),
    }
}

/// The key that a file names, if it is a fixture and not an intent.
fn key_in(path: &Path) -> anyhow::Result<Option<String>> {
    let place = || path.display().to_string();
    let value = parse_json(&std::fs::read(path).with_context(place)?).with_context(place)?;
    let key = value["key"].as_str();
    Ok(key
        .filter(|key| *key == DEFAULT_KEY || key.len() == 64)
        .map(str::to_owned))
}

/// The answer, a member a line, in one order whoever wrote it.
fn lines(fixture: &Fixture) -> anyhow::Result<String> {
    let canonical = canonical_json(&fixture.answer_json()?);
    let sorted: Value = parse_json(canonical.as_bytes())?;
    Ok(serde_json::to_string_pretty(&sorted)? + "\n")
}
