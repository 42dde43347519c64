//! `kodo oc record [QUESTION…] [--default INTENT.json]`

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{bail, ensure};
use kodo_contract::Intent;
use kodo_planner::{DEFAULT_KEY, Fixture, FixtureFolder, PlanRequest, RecordPlanner, Saved, fresh};

use super::question::{Question, asked, intent};
use super::{Printed, outline};
use crate::planner;
use crate::settings::Settings;

/// Asks each question and keeps the answers. Exit code 1 where one is a failure; it is recorded all the same.
pub(crate) async fn run(
    settings: &Settings,
    questions: &[String],
    default: Option<&Path>,
) -> anyhow::Result<Printed> {
    let dir = settings.planner.folder()?;
    let folder = FixtureFolder::new(dir.clone());
    let live = planner::live(settings).await?;
    let recorder = RecordPlanner::new(Arc::clone(&live), dir);
    let mut text = String::new();
    let mut failed = false;
    let mut note = |fixture: &Fixture, saved: Saved| {
        failed |= fixture.answer.is_err();
        let what = match saved {
            Saved::Added => "added",
            Saved::Changed => "changed",
            Saved::Unchanged => "unchanged",
            Saved::PlanKept => "kept as it was",
        };
        text.push_str(&format!("{} {what}: {}\n", fixture.key, outline(fixture)));
    };
    for (intent, seed) in asked_for(settings, &folder, questions, default.is_some()).await? {
        let key = kodo_planner::fixture_key(&intent, seed);
        let request = PlanRequest {
            intent: &intent,
            seed,
            idempotency_key: &format!("record/{key}"),
        };
        let (fixture, saved) = recorder.record(&request).await?;
        note(&fixture, saved);
    }
    if let Some(path) = default {
        let intent = intent(path)?;
        let request = PlanRequest {
            intent: &intent,
            seed: settings.work.test_seed,
            idempotency_key: "record/default",
        };
        let fixture = Fixture {
            key: DEFAULT_KEY.to_owned(),
            // It answers every intent: what it was made of says nothing about those.
            request: None,
            ..fresh(&*live, &request).await?
        };
        if let Err(failure) = &fixture.answer {
            bail!("the default fixture stays as it was: {failure}");
        }
        let saved = folder.save(&fixture).await?;
        note(&fixture, saved);
    }
    let code = match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    };
    Ok(Printed::new(text, code))
}

/// The questions that were named; without any, those of all fixtures that say what they answer.
async fn asked_for(
    settings: &Settings,
    folder: &FixtureFolder,
    questions: &[String],
    only_default: bool,
) -> anyhow::Result<Vec<(Intent, u64)>> {
    let mut asked_for = Vec::new();
    for question in questions {
        asked_for.push(match Question::read(question, folder)? {
            Question::Intent(intent) => (intent, settings.work.test_seed),
            Question::Key(key) => {
                ensure!(
                    key != DEFAULT_KEY,
                    "the default fixture answers no question of its own: record it with --default INTENT.json"
                );
                match folder.load(&key).await? {
                    Some(fixture) => asked(&fixture)?,
                    None => bail!("no fixture {}", folder.path_of(&key).display()),
                }
            }
        });
    }
    if !questions.is_empty() || only_default {
        return Ok(asked_for);
    }
    for key in folder.keys()? {
        if key == DEFAULT_KEY {
            continue;
        }
        if let Some(fixture) = folder.load(&key).await? {
            asked_for.push(asked(&fixture)?);
        }
    }
    Ok(asked_for)
}
