//! The planner that answers from fixtures, without a socket.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::{
    DEFAULT_KEY, Fixture, FixtureFolder, PlanError, PlanRequest, PlanSource, Planned, Planner,
    fixture_key,
};

/// The default fixture of the repository, so that the binary works without any folder.
const BUILT_IN_DEFAULT: &str = include_str!("../../../fixtures/oc/default.json");

/// Answers with the fixture that was recorded for the intent and seed, otherwise with the default fixture.
///
/// A fixture is read and checked every time that it is used, so that a new or repaired one counts at once.
#[derive(Clone, Debug)]
pub struct ReplayPlanner {
    folder: Option<FixtureFolder>,
}

impl ReplayPlanner {
    /// Answers from the fixtures in `dir`; without a folder, always with the default fixture in the binary.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self {
            folder: dir.map(FixtureFolder::new),
        }
    }
}

#[async_trait]
impl Planner for ReplayPlanner {
    fn name(&self) -> &'static str {
        "replay"
    }

    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError> {
        let key = fixture_key(request.intent, request.seed);
        let Some(folder) = &self.folder else {
            let path = Path::new("(built in)/default.json");
            let fixture = Fixture::read(BUILT_IN_DEFAULT.as_bytes(), DEFAULT_KEY, path)?;
            return Ok(Planned {
                plan: fixture.answer?,
                source: PlanSource::DefaultFixture { key },
            });
        };
        if let Some(fixture) = folder.load(&key).await? {
            return Ok(Planned {
                plan: fixture.answer?,
                source: PlanSource::Fixture { key },
            });
        }
        if let Some(fixture) = folder.load(DEFAULT_KEY).await? {
            return Ok(Planned {
                plan: fixture.answer?,
                source: PlanSource::DefaultFixture { key },
            });
        }
        let path = folder.path_of(&key);
        Err(PlanError::FixtureMissing { key, path })
    }
}

#[cfg(test)]
mod tests {
    use kodo_contract::{Intent, decode, encode};
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oc")
    }

    fn demo() -> Intent {
        let body = json!({
            "goal": "demo",
            "inputs": {"repo": "sisu-kodo"},
            "constraints": {"determinism": true},
            "connectors": []
        });
        decode(&body).unwrap()
    }

    async fn plan(dir: Option<&Path>, seed: u64) -> Result<Planned, PlanError> {
        let request = PlanRequest {
            intent: &demo(),
            seed,
            idempotency_key: "run_1/plan",
        };
        let planner = ReplayPlanner::new(dir.map(Path::to_owned));
        planner.plan(&request).await
    }

    #[tokio::test]
    async fn the_intent_of_the_course_has_a_fixture_of_its_own() {
        let key = fixture_key(&demo(), 424_242);
        let planned = plan(Some(&repository()), 424_242).await;
        let planned = planned.unwrap_or_else(|error| panic!("key {key}: {error}"));
        assert_eq!(
            planned.source,
            PlanSource::Fixture { key: key.clone() },
            "no fixtures/oc/{key}.json"
        );
        assert_eq!(planned.plan.tool_calls.len(), 1);
    }

    #[tokio::test]
    async fn every_other_intent_gets_the_default_and_the_answer_says_so() {
        let planned = plan(Some(&repository()), 1).await.unwrap();
        let key = fixture_key(&demo(), 1);
        assert_eq!(planned.source, PlanSource::DefaultFixture { key });
        let names: Vec<_> = planned
            .plan
            .tool_calls
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, ["repo.inspect", "repo.change", "repo.verify"]);
        assert!(encode(&planned.plan).is_ok());
    }

    #[tokio::test]
    async fn the_bare_binary_answers_with_the_default_too() {
        let built_in = plan(None, 1).await.unwrap();
        assert_eq!(built_in, plan(Some(&repository()), 1).await.unwrap());
    }

    #[test]
    fn every_committed_fixture_is_sound() {
        for entry in std::fs::read_dir(repository()).unwrap() {
            let path = entry.unwrap().path();
            let key = path.file_stem().unwrap().to_str().unwrap();
            Fixture::read(&std::fs::read(&path).unwrap(), key, &path).unwrap();
        }
    }

    #[tokio::test]
    async fn without_any_fixture_the_error_names_the_key_and_what_to_do() {
        let dir = TempDir::new().unwrap();
        for dir in [dir.path(), &dir.path().join("absent")] {
            let error = plan(Some(dir), 424_242).await.unwrap_err();
            assert_eq!(error.code(), "planner_fixture_missing");
            let text = error.to_string();
            let key = fixture_key(&demo(), 424_242);
            let path = dir.join(format!("{key}.json"));
            assert!(text.contains(path.to_str().unwrap()), "{text}");
            assert!(text.contains(&format!("{{\"key\":\"{key}\"")), "{text}");
        }
    }

    #[tokio::test]
    async fn the_cure_that_the_error_names_works() {
        let dir = TempDir::new().unwrap();
        let Err(PlanError::FixtureMissing { key, path }) = plan(Some(dir.path()), 1).await else {
            panic!("there is no fixture yet");
        };
        let response = json!({"prompt": "p", "toolCalls": [], "responses": [], "diffs": []});
        let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
        std::fs::write(path, fixture.to_string()).unwrap();
        let planned = plan(Some(dir.path()), 1).await.unwrap();
        assert_eq!(planned.source, PlanSource::Fixture { key });
    }

    #[tokio::test]
    async fn a_fixture_copied_under_another_key_is_tampering_and_never_falls_back() {
        let dir = TempDir::new().unwrap();
        let default = dir.path().join("default.json");
        std::fs::copy(repository().join("default.json"), default).unwrap();
        let of_the_demo = repository().join(format!("{}.json", fixture_key(&demo(), 424_242)));
        let key = fixture_key(&demo(), 1);
        let copy = dir.path().join(format!("{key}.json"));
        std::fs::copy(&of_the_demo, &copy).unwrap();
        let error = plan(Some(dir.path()), 1).await.unwrap_err();
        assert_eq!(error.code(), "planner_fixture_invalid");
        assert!(
            error.to_string().contains(copy.to_str().unwrap()),
            "{error}"
        );

        let text = std::fs::read_to_string(&of_the_demo).unwrap();
        let old = fixture_key(&demo(), 424_242);
        std::fs::write(&copy, text.replace(&old, &key)).unwrap();
        let error = plan(Some(dir.path()), 1).await.unwrap_err();
        assert!(
            error.to_string().contains("its request belongs to the key"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_fixture_that_cannot_be_read_is_an_error_and_no_absence() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(format!("{}.json", fixture_key(&demo(), 1)));
        std::fs::create_dir(&path).unwrap();
        let error = plan(Some(dir.path()), 1).await.unwrap_err();
        assert_eq!(error.code(), "planner_fixture_unreadable");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_recorded_failure_is_replayed_as_that_failure() {
        let dir = TempDir::new().unwrap();
        let key = fixture_key(&demo(), 1);
        let failure = json!({"code": "planner_declined", "message": "the model declined: no"});
        let fixture = json!({"key": key, "schemaVersion": 1, "failure": failure});
        std::fs::write(dir.path().join(format!("{key}.json")), fixture.to_string()).unwrap();
        let error = plan(Some(dir.path()), 1).await.unwrap_err();
        assert_eq!(error.code(), "planner_declined");
        assert_eq!(error.to_string(), "the model declined: no");
    }
}
