//! A folder of fixtures on disk.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kodo_contract::RetryClass;

use crate::{Fixture, PlanError};

/// The end of a fixture's file name.
const SUFFIX: &str = ".json";

/// A folder of fixtures. A file is read and checked every time that it is used.
#[derive(Clone, Debug)]
pub struct FixtureFolder(PathBuf);

/// What saving a recording changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// There was no fixture before.
    Added,
    /// It replaced another fixture.
    Changed,
    /// The same fixture was there already, byte for byte.
    Unchanged,
    /// It is a failure of the connection or the provider, and there is a plan: the plan stays.
    PlanKept,
}

impl FixtureFolder {
    /// The folder at `dir`. One that does not exist has no fixtures.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The path of the fixture with this key, whether it exists or not.
    #[must_use]
    pub fn path_of(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}{SUFFIX}"))
    }

    /// The fixture with this key; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`PlanError::FixtureUnreadable`] and [`PlanError::FixtureInvalid`].
    pub async fn load(&self, key: &str) -> Result<Option<Fixture>, PlanError> {
        let path = self.path_of(key);
        match tokio::fs::read(&path).await {
            Ok(bytes) => Fixture::read(&bytes, key, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PlanError::FixtureUnreadable {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// The keys of all fixtures, by their file names, sorted.
    ///
    /// # Errors
    ///
    /// [`PlanError::FixtureUnreadable`] if the folder cannot be listed.
    pub fn keys(&self) -> Result<Vec<String>, PlanError> {
        let unreadable = |error: io::Error| PlanError::FixtureUnreadable {
            path: self.0.clone(),
            reason: error.to_string(),
        };
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let name = name.to_string_lossy();
            // A process that was killed while it saved leaves a hidden file.
            if let Some(key) = name.strip_suffix(SUFFIX)
                && !name.starts_with('.')
            {
                keys.push(key.to_owned());
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// Saves a recording atomically: a reader finds the old file or the new one, also after a crash. A failure that another
    /// try could have avoided never replaces a plan.
    ///
    /// # Errors
    ///
    /// [`PlanError::FixtureUnwritable`]; [`PlanError::FixtureInvalid`] if the plan is not valid.
    pub async fn save(&self, fixture: &Fixture) -> Result<Saved, PlanError> {
        let path = self.path_of(&fixture.key);
        let text = fixture
            .to_text()
            .map_err(|invalid| PlanError::FixtureInvalid {
                path: path.clone(),
                reason: invalid.to_string(),
            })?;
        // Only a permanent failure is an answer to the question; any other is one of the connection or the provider.
        let failure = fixture.answer.as_ref().err();
        if failure.is_some_and(|failure| failure.code.retry_class() != RetryClass::Permanent)
            && matches!(self.load(&fixture.key).await, Ok(Some(old)) if old.answer.is_ok())
        {
            return Ok(Saved::PlanKept);
        }
        let (dir, target) = (self.0.clone(), path.clone());
        // fsync blocks. Once begun, this finishes even if the caller is dropped.
        let written = tokio::task::spawn_blocking(move || write(&dir, &target, text.as_bytes()));
        let written = written.await.unwrap_or_else(|error| Err(error.into()));
        written.map_err(|error| PlanError::FixtureUnwritable {
            path,
            reason: error.to_string(),
        })
    }
}

/// Writes a temporary file and renames it.
fn write(dir: &Path, target: &Path, bytes: &[u8]) -> io::Result<Saved> {
    let before = match std::fs::read(target) {
        Ok(before) if before == bytes => return Ok(Saved::Unchanged),
        Ok(_) => Saved::Changed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::Added,
        Err(error) => return Err(error),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".recording-")
        // Others read fixtures, and commit them. The umask of the process still applies.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use kodo_contract::{ErrorCode, Intent, decode};
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::{Failure, Recorded};

    fn intent() -> Intent {
        decode(&json!({"goal": "g", "inputs": {}, "constraints": {}})).unwrap()
    }

    fn recording(prompt: &str) -> Fixture {
        let plan = json!({"prompt": prompt, "toolCalls": [], "responses": [], "diffs": []});
        with(Ok(decode(&plan).unwrap()))
    }

    fn with(answer: Result<kodo_contract::Plan, Failure>) -> Fixture {
        let recorded = Recorded {
            provider: "openai".into(),
            model: "m".into(),
            prompt_version: 1,
        };
        Fixture::new(&intent(), 1, recorded, answer)
    }

    fn failure(code: ErrorCode) -> Fixture {
        with(Err(Failure {
            code,
            message: "m".into(),
            passes_after: None,
        }))
    }

    #[tokio::test]
    async fn a_recording_is_there_whole_and_nothing_else_is() {
        let dir = TempDir::new().unwrap();
        let folder = FixtureFolder::new(dir.path().to_owned());
        let one = recording("one");
        assert_eq!(folder.save(&one).await.unwrap(), Saved::Added);
        assert_eq!(folder.save(&one).await.unwrap(), Saved::Unchanged);
        let two = recording("two");
        assert_eq!(folder.save(&two).await.unwrap(), Saved::Changed);
        assert_eq!(folder.load(&two.key).await.unwrap().unwrap(), two);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(dir.path().join(".recording-x.json"), "half").unwrap();
        std::fs::write(dir.path().join("README.md"), "").unwrap();
        assert_eq!(folder.keys().unwrap(), [two.key]);
    }

    #[tokio::test]
    async fn a_failure_of_the_connection_takes_no_plan_away_and_an_answer_does() {
        let dir = TempDir::new().unwrap();
        let folder = FixtureFolder::new(dir.path().to_owned());
        let unreachable = failure(ErrorCode::PlannerUnreachable);
        assert_eq!(folder.save(&unreachable).await.unwrap(), Saved::Added);
        assert_eq!(folder.save(&recording("p")).await.unwrap(), Saved::Changed);
        assert_eq!(folder.save(&unreachable).await.unwrap(), Saved::PlanKept);
        let declined = failure(ErrorCode::PlannerDeclined);
        assert_eq!(folder.save(&declined).await.unwrap(), Saved::Changed);
    }

    #[tokio::test]
    async fn many_recordings_at_once_leave_one_of_them_whole() {
        let dir = TempDir::new().unwrap();
        let folder = FixtureFolder::new(dir.path().to_owned());
        let saves: Vec<_> = (0..16)
            .map(|n| {
                let folder = folder.clone();
                tokio::spawn(async move { folder.save(&recording(&n.to_string())).await })
            })
            .collect();
        for save in saves {
            save.await.unwrap().unwrap();
        }
        let key = recording("").key;
        assert!(folder.load(&key).await.unwrap().unwrap().answer.is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_recording_that_cannot_be_kept_says_where() {
        let dir = TempDir::new().unwrap();
        let folder = FixtureFolder::new(dir.path().join("absent"));
        let error = folder.save(&recording("p")).await.unwrap_err();
        assert_eq!(error.code(), "planner_fixture_unwritable");
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
