//! What an intent gives to the jobs of its runs, and the files that a call finds in a run that was planned by an older
//! version: those of the intent, and those that earlier calls left. Runs of this version have a workspace.

use kodo_contract::{
    ErrorCode, Intent, Node, NodeKind, RunId, StepId, ToolFile, Tree, decode, now,
};
use kodo_sandbox::{InputFile, Overlay, Workspace, granted_secrets, input_files};

use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::files::{fetched, files_of_step};
use crate::run::workspace::{disk, spool};

/// Most bytes of files that a call finds which has no workspace: what older versions allowed.
const MAX_WORKSPACE_BYTES: u64 = 256 * 1024 * 1024;

/// What an intent gives to the jobs of its runs.
#[derive(Debug)]
pub(crate) struct Inputs {
    files: Vec<InputFile>,
    /// Names of the secrets that the intent allows.
    pub(crate) secrets: Vec<String>,
}

impl Inputs {
    /// The files of the intent.
    pub(crate) fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// Those of an intent: `inputs.files` and `constraints.secrets`.
    pub(crate) fn of(intent: &Intent) -> Result<Self, RunFailure> {
        let files = intent.inputs.get("files");
        Ok(Self {
            files: files.map_or(Ok(Vec::new()), input_files)?,
            secrets: granted_secrets(&intent.constraints),
        })
    }

    /// Those of the stored intent of a run, validated at load.
    pub(crate) async fn load(ctx: &RunContext, run_id: &RunId) -> Result<Self, RunFailure> {
        let run = ctx.stored_run(run_id).await?;
        let intent =
            decode(&run.intent).map_err(RunFailure::invalid(ErrorCode::StoredIntentInvalid))?;
        Self::of(&intent)
    }

    /// The files that a call of a run without a workspace finds, as one, of which nothing is carried on but files. Those of these
    /// earlier steps replace those of the intent and those of the steps before them if they have the same name.
    pub(crate) async fn inherited(
        &self,
        ctx: &RunContext,
        run_id: &RunId,
        steps: &[StepId],
    ) -> Result<Workspace, RunFailure> {
        let mut files = Overlay::default();
        for file in &self.files {
            files.put(&file.name, Origin::Intent(file));
        }
        for step in steps {
            for file in files_of_step(ctx, run_id, step).await? {
                files.put(&file.name.clone(), Origin::Step(file));
            }
        }
        let bytes: u64 = files.iter().map(Origin::size).sum();
        if bytes > MAX_WORKSPACE_BYTES {
            return Err(RunFailure::new(
                ErrorCode::WorkspaceTooLarge,
                format!(
                    "the files in the call's workspace have {bytes} bytes; at most {MAX_WORKSPACE_BYTES} are allowed"
                ),
            ));
        }
        let (content, mut tree) = (spool(ctx)?, Tree::default());
        let modified = i64::try_from(now().unix_timestamp_nanos()).unwrap_or(i64::MAX);
        for file in files.into_files() {
            let (name, executable, sha256) = match &file {
                Origin::Intent(file) => {
                    let size = file.content.len() as u64;
                    let kept = content.keep(&mut file.content.as_slice(), size);
                    (&file.name, file.executable, kept.map_err(disk)?)
                }
                Origin::Step(file) => {
                    let executable = file.executable == Some(true);
                    (&file.name, executable, fetched(ctx, file, &content).await?)
                }
            };
            let size = content.find(&sha256).map_or(0, |it| it.end - it.start);
            let mode = if executable { 0o755 } else { 0o644 };
            let node = Node::new(NodeKind::File { sha256, size }, mode, modified);
            tree.put(name.as_str().into(), node);
        }
        Ok(Workspace {
            tree,
            content,
            bounds: ctx.bounds,
        })
    }
}

/// Where a file comes from. The content of an earlier step's file is read only if no later step replaced the file.
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

/// For each call the indexes of all calls that it depends on, directly or indirectly, in ascending order.
pub(crate) fn predecessors(dependencies: &[Vec<usize>]) -> Vec<Vec<usize>> {
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
    fn a_call_comes_after_its_dependencies_and_theirs() {
        let direct = vec![vec![], vec![0], vec![], vec![1, 2]];
        assert_eq!(
            predecessors(&direct),
            [vec![], vec![0_usize], vec![], vec![0, 1, 2]]
        );
    }

    fn inputs_of(inputs: Value, constraints: Value) -> Result<Inputs, RunFailure> {
        let intent = json!({"goal": "g", "inputs": inputs, "constraints": constraints});
        Inputs::of(&decode(&intent).unwrap())
    }

    #[test]
    fn an_intent_has_files_and_allows_secrets() {
        let inputs = inputs_of(
            json!({"files": {"a.txt": "a"}, "other": 1}),
            json!({"secrets": ["TOKEN", 1], "noNetwork": true}),
        )
        .unwrap();
        assert_eq!(inputs.files[0].name, "a.txt");
        assert_eq!(inputs.secrets, ["TOKEN"]);
    }

    #[test]
    fn malformed_files_are_refused_and_a_malformed_constraint_allows_no_secret() {
        let error = inputs_of(json!({"files": "all"}), json!({})).unwrap_err();
        assert_eq!(error.code, "input_files_invalid");
        assert!(
            inputs_of(json!({}), json!({"secrets": "TOKEN"}))
                .unwrap()
                .secrets
                .is_empty()
        );
    }
}
