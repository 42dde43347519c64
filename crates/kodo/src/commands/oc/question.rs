//! What people name on the command line: a key, its beginning, or the file of an intent.

use std::path::Path;

use anyhow::{Context, bail};
use kodo_contract::{Intent, decode, parse_json};
use kodo_planner::{DEFAULT_KEY, Fixture, FixtureFolder, fixture_key};

use crate::settings::Settings;

/// The fewest digits of a key that stand for it.
const SHORTEST: usize = 4;

/// A question, as it was named.
pub(crate) enum Question {
    /// By a key that is in the folder.
    Key(String),
    /// By an intent, which need not have a fixture.
    Intent(Intent),
}

impl Question {
    /// Finds out what was named.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(text: &str, folder: &FixtureFolder) -> anyhow::Result<Self> {
        if text == DEFAULT_KEY {
            return Ok(Self::Key(text.to_owned()));
        }
        let path = Path::new(text);
        if path.is_file() {
            return Ok(Self::Intent(intent(path)?));
        }
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || text.len() < SHORTEST {
            bail!(
                "{text:?} is no question: the key of a fixture, at least {SHORTEST} digits of it, {DEFAULT_KEY}, or \
                 the file of an intent is accepted"
            );
        }
        let text = text.to_ascii_lowercase();
        let mut keys = folder.keys()?;
        keys.retain(|key| key.starts_with(&text));
        match keys.as_slice() {
            [key] => Ok(Self::Key(key.clone())),
            // Whoever gave the whole key is told where it would be.
            [] => Ok(Self::Key(text)),
            several => bail!("{text} is the beginning of {}", several.join(", ")),
        }
    }

    /// The key that its fixture has.
    pub(crate) fn key(&self, settings: &Settings) -> String {
        match self {
            Self::Key(key) => key.clone(),
            Self::Intent(intent) => fixture_key(intent, settings.work.test_seed),
        }
    }
}

/// The intent in a file.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn intent(path: &Path) -> anyhow::Result<Intent> {
    let place = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(place)?;
    decode(&parse_json(&bytes).with_context(place)?).with_context(place)
}

/// What a fixture answers.
///
/// # Errors
/// Where the fixture does not say.
pub(crate) fn asked(fixture: &Fixture) -> anyhow::Result<(Intent, u64)> {
    match fixture.question() {
        Ok(Some(question)) => Ok(question),
        Ok(None) => bail!(
            "fixture {} does not say what it answers: it has no request with an intent and a seed",
            fixture.key
        ),
        Err(invalid) => bail!("fixture {}: {invalid}", fixture.key),
    }
}
