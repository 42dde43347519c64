//! What a run gives to its tool calls: the files of its intent, and what earlier calls made of them.

use kodo_contract::{ErrorCode, Intent, RunId, StepId, ToolFile, decode};
use kodo_sandbox::{InputFile, Overlay, granted_secrets, input_files};

use crate::failure::RunFailure;
use crate::run::durable::weather;
use crate::run::record::{content_of_file, files_of_step};
use crate::run::workflow::Workshop;

/// The most bytes of files that one call finds: each of them is in memory on its way into the jail.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// What an intent has for the jobs of its runs.
#[derive(Debug)]
pub(crate) struct Material {
    files: Vec<InputFile>,
    /// The names of the secrets that it allows.
    pub(crate) secrets: Vec<String>,
}

impl Material {
    /// Of an intent: `inputs.files`, and `constraints.secrets`.
    pub(crate) fn of(intent: &Intent) -> Result<Self, RunFailure> {
        let files = intent.inputs.get("files");
        Ok(Self {
            files: files.map_or(Ok(Vec::new()), input_files)?,
            secrets: granted_secrets(&intent.constraints),
        })
    }

    /// Of the intent of a run.
    pub(crate) async fn load(shop: &Workshop, run_id: &RunId) -> Result<Self, RunFailure> {
        let run = weather(|| shop.store.run_to_plan(run_id))
            .await?
            .ok_or_else(|| {
                RunFailure::new(
                    ErrorCode::RunMissing,
                    format!("run {run_id} is not in the database"),
                )
            })?;
        let intent = decode(&run.intent).map_err(|invalid| {
            RunFailure::new(ErrorCode::StoredIntentInvalid, invalid.to_string())
        })?;
        Self::of(&intent)
    }

    /// The files that a call finds: the intent's, with those over them that these earlier steps left, the later ones
    /// over the earlier ones.
    pub(crate) async fn files(
        &self,
        shop: &Workshop,
        run_id: &RunId,
        steps: &[StepId],
    ) -> Result<Vec<InputFile>, RunFailure> {
        let mut files = Overlay::default();
        for file in &self.files {
            files.put(&file.name, Origin::Intent(file));
        }
        for step in steps {
            for file in files_of_step(shop, run_id, step).await? {
                files.put(&file.name.clone(), Origin::Step(file));
            }
        }
        let bytes: u64 = files.iter().map(Origin::size).sum();
        if bytes > MOST_BYTES {
            return Err(RunFailure::new(
                ErrorCode::WorkspaceTooLarge,
                format!(
                    "the files that the call finds have {bytes} bytes, of at most {MOST_BYTES}"
                ),
            ));
        }
        let mut read = Vec::new();
        for file in files.into_files() {
            read.push(match file {
                Origin::Intent(file) => file.clone(),
                Origin::Step(file) => InputFile {
                    content: content_of_file(shop, &file).await?.to_vec(),
                    executable: file.executable == Some(true),
                    name: file.name,
                },
            });
        }
        Ok(read)
    }
}

/// Where a file comes from. What an earlier step left is read once it is known that no later one has replaced it.
enum Origin<'a> {
    Intent(&'a InputFile),
    Step(ToolFile),
}

impl Origin<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Intent(file) => file.content.len() as u64,
            Self::Step(file) => {
                let text = file.content.as_ref().map_or(0, String::len) as u64;
                file.size.unwrap_or(text)
            }
        }
    }
}

/// For each call the indexes of all calls that have to be over before it, directly or not, in ascending order.
pub(crate) fn before(dependencies: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = Vec::with_capacity(dependencies.len());
    for direct in dependencies {
        let mut before = direct.clone();
        before.extend(direct.iter().filter_map(|&it| all.get(it)).flatten());
        before.sort_unstable();
        before.dedup();
        all.push(before);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_comes_before_a_call_is_what_it_depends_on_and_what_that_depends_on() {
        let direct = vec![vec![], vec![0], vec![], vec![1, 2]];
        assert_eq!(
            before(&direct),
            [vec![], vec![0_usize], vec![], vec![0, 1, 2]]
        );
    }

    fn material(inputs: Value, constraints: Value) -> Result<Material, RunFailure> {
        let intent = json!({"goal": "g", "inputs": inputs, "constraints": constraints});
        Material::of(&decode(&intent).unwrap())
    }

    #[test]
    fn an_intent_has_files_and_allows_secrets() {
        let material = material(
            json!({"files": {"a.txt": "a"}, "other": 1}),
            json!({"secrets": ["TOKEN", 1], "noNetwork": true}),
        )
        .unwrap();
        assert_eq!(material.files[0].name, "a.txt");
        assert_eq!(material.secrets, ["TOKEN"]);
    }

    #[test]
    fn files_that_are_none_are_refused_and_a_strange_constraint_allows_nothing() {
        let error = material(json!({"files": "all"}), json!({})).unwrap_err();
        assert_eq!(error.code, "input_files_invalid");
        assert!(
            material(json!({}), json!({"secrets": "TOKEN"}))
                .unwrap()
                .secrets
                .is_empty()
        );
    }
}
