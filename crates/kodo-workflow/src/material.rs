//! What a run gives to its tool calls: the files of its intent, and what earlier calls made of them.

use std::collections::BTreeMap;

use kodo_contract::{Intent, RunId, StepId, decode};
use kodo_sandbox::{InputFile, input_files};
use serde_json::Value;

use crate::failure::RunFailure;
use crate::intent_run::Workshop;
use crate::recording::files_of_steps;
use crate::step::weather;

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
            // A constraint of another shape allows nothing.
            secrets: intent
                .constraints
                .get("secrets")
                .and_then(Value::as_array)
                .map(|names| {
                    let names = names.iter().filter_map(Value::as_str);
                    names.map(str::to_owned).collect()
                })
                .unwrap_or_default(),
        })
    }

    /// Of the intent of a run.
    pub(crate) async fn load(shop: &Workshop, run_id: &RunId) -> Result<Self, RunFailure> {
        let run = weather(|| shop.store.run_to_plan(run_id))
            .await?
            .ok_or_else(|| {
                RunFailure::new(
                    "run_missing",
                    format!("run {run_id} is not in the database"),
                )
            })?;
        let intent = decode(&run.intent)
            .map_err(|invalid| RunFailure::new("stored_intent_invalid", invalid.to_string()))?;
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
        let mut files: BTreeMap<String, InputFile> = self
            .files
            .iter()
            .map(|file| (file.name.clone(), file.clone()))
            .collect();
        for file in files_of_steps(shop, run_id, steps).await? {
            let left = InputFile {
                name: file.name,
                content: file.content.to_vec(),
                executable: file.executable,
            };
            files.insert(left.name.clone(), left);
        }
        Ok(files.into_values().collect())
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
    use serde_json::json;

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
