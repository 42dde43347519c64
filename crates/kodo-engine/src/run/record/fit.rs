//! Makes what a step records fit into the room that the view of its run has: the largest of its output and its artifacts go
//! into the artifact store, until the rest fits.

use std::cmp::Reverse;
use std::collections::HashSet;

use bytes::Bytes;
use kodo_contract::{
    ContentHash, ErrorCode, RunId, StepId, StoredOutput, canonical_json, encode, json_size,
};
use kodo_store::NewArtifact;
use kodo_store::content::{content_of, media_type_of};
use serde_json::{Value, json};

use super::Recording;
use crate::failure::RunFailure;
use crate::run::large::Large;

/// What refers to content takes at most this much, beside the name of a file. Nothing shorter is stored elsewhere.
const REFERENCE: u64 = 192;

/// The kind of the artifact that is an output.
const OUTPUT: &str = "output";

/// The step whose entries are measured.
struct Entries<'a> {
    run_id: &'a RunId,
    step_id: &'a StepId,
}

impl Entries<'_> {
    /// The step's own, without its output.
    fn step(&self) -> u64 {
        let time = "2026-01-02T03:04:05.678Z";
        json_size(&json!({
            "stepId": self.step_id, "phase": "executing", "output": "", "startedAt": time, "finishedAt": time,
        }))
    }

    /// That of an artifact, without what is inline. The quotes of the empty text stand for the comma.
    fn artifact(&self, index: usize, kind: &str) -> u64 {
        let uri = NewArtifact::uri(self.run_id, self.step_id, index);
        json_size(&json!({"kind": kind, "uri": uri, "inline": "", "sha256": "0".repeat(64)}))
    }

    /// What an output takes at most that is in the artifact store: a reference in its place, and an artifact.
    fn stored_output(&self, index: usize) -> u64 {
        REFERENCE + self.artifact(index, OUTPUT) + REFERENCE
    }
}

/// The least that an artifact has inline.
fn least(artifact: &NewArtifact) -> u64 {
    if artifact.stored_content().is_some() {
        return json_size(artifact.value());
    }
    let name = artifact.value().get("name").map_or(0, json_size);
    json_size(artifact.value()).min(REFERENCE + name)
}

impl Recording {
    /// Makes the step take at most `room` bytes of a view, and returns how many it takes. If even the list of its files does
    /// not fit, the last ones are no artifacts, and its report says so. A step that does not fit as it is takes less than that, if
    /// it can.
    ///
    /// # Errors
    /// `plan_invalid`, for a plan that has more diffs than can be listed.
    pub(crate) fn fit(
        &mut self,
        run_id: &RunId,
        step_id: &StepId,
        room: u64,
    ) -> Result<u64, RunFailure> {
        let entries = Entries { run_id, step_id };
        let mut bytes = self.view_size(&entries);
        if bytes <= room {
            return Ok(bytes);
        }
        self.omit_files(&entries, room)?;
        bytes = self.view_size(&entries);
        // A quarter is left to those that come later: their entries need room even if their content does not.
        let room = room - room / 4;
        let output = json_size(&self.output);
        let stored_output = entries.stored_output(self.artifacts.len());
        let artifacts = self.artifacts.iter().enumerate();
        // Only what a reference is shorter than.
        let mut largest: Vec<(u64, Option<usize>)> = artifacts
            .map(|(index, artifact)| (json_size(artifact.value()), least(artifact), Some(index)))
            .chain([(output, stored_output, None)])
            .filter(|(size, least, _)| size > least)
            .map(|(size, _, index)| (size, index))
            .collect();
        if self.shown.is_some() {
            largest.retain(|(_, index)| index.is_some());
        }
        largest.sort_by_key(|(size, _)| Reverse(*size));
        for (size, index) in largest {
            if bytes <= room {
                break;
            }
            bytes -= size;
            bytes += match index {
                Some(index) => self.store_artifact(index)?,
                None => self.store_output(&entries)?,
            };
        }
        Ok(bytes)
    }

    fn view_size(&self, entries: &Entries<'_>) -> u64 {
        let artifacts = self.artifacts.iter().enumerate();
        let artifacts = artifacts.map(|(index, artifact)| {
            entries.artifact(index, artifact.kind()) + json_size(artifact.value())
        });
        let output = self.shown.as_ref().unwrap_or(&self.output);
        entries.step() + json_size(output) + artifacts.sum::<u64>()
    }

    /// Leaves out the last files, until what is left fits if all of it is stored elsewhere.
    fn omit_files(&mut self, entries: &Entries<'_>, room: u64) -> Result<(), RunFailure> {
        let sizes = self.artifacts.iter().enumerate();
        let sizes: Vec<u64> = sizes
            .map(|(index, it)| entries.artifact(index, it.kind()) + least(it))
            .collect();
        let output = entries.stored_output(sizes.len());
        let mut needed = entries.step() + output + sizes.iter().sum::<u64>();
        let mut omitted = 0_u64;
        while needed > room
            && let Some(last) = self.artifacts.pop_if(|it| it.kind() == "file")
        {
            drop(last);
            needed -= sizes[self.artifacts.len()];
            omitted += 1;
        }
        if needed > room && self.output.get("plan").is_some() {
            let text = format!(
                "the plan has {} diffs; a run cannot show so many",
                self.artifacts.len() - 1
            );
            return Err(RunFailure::new(ErrorCode::PlanInvalid, text));
        }
        if omitted == 0 {
            return Ok(());
        }
        let left = self
            .artifacts
            .iter()
            .filter(|it| it.kind() == "file")
            .count();
        if let Some(files) = self.output["files"].as_array_mut() {
            files.truncate(left);
        }
        let before = self.output["report"]["artifacts"]["omitted"].as_u64();
        self.output["report"]["artifacts"] = json!({
            "omitted": omitted + before.unwrap_or_default(),
            "limit": "more files than the view of the run has room for; the workspace has them all, and `artifacts` chooses",
        });
        let kept: HashSet<ContentHash> = self
            .artifacts
            .iter()
            .filter_map(|it| Some(it.stored_content()?.sha256.clone()))
            .collect();
        self.large.retain(|(hash, _)| kept.contains(hash));
        Ok(())
    }

    /// Moves what an artifact has inline into the artifact store. Returns the size of what refers to it.
    fn store_artifact(&mut self, index: usize) -> Result<u64, RunFailure> {
        let artifact = &self.artifacts[index];
        let kind = artifact.kind().to_owned();
        let value = artifact.value();
        let executable = value.get("executable").and_then(Value::as_bool);
        let (bytes, media_type, name) = match value {
            // A text is stored without quotes, as long ones are.
            Value::String(text) => (
                text.clone().into_bytes(),
                media_type_of(text.as_bytes()),
                None,
            ),
            value => {
                let content = content_of(&kind, value);
                (content.bytes, content.media_type, content.name)
            }
        };
        let file = name.map(|name| (name, executable));
        let (hash, bytes) = (ContentHash::of(&bytes), Large::Memory(bytes.into()));
        let stored = self.stored(&kind, hash, bytes, media_type, file)?;
        let size = json_size(stored.value());
        self.artifacts[index] = stored;
        Ok(size)
    }

    /// Moves the output into the artifact store. Returns the size of what is shown instead, with the entry of the artifact.
    fn store_output(&mut self, entries: &Entries<'_>) -> Result<u64, RunFailure> {
        let bytes = Bytes::from(canonical_json(&self.output));
        let shown = StoredOutput {
            stored: true,
            sha256: ContentHash::of(&bytes),
            size: bytes.len() as u64,
        };
        let entry = entries.artifact(self.artifacts.len(), OUTPUT);
        let content = Large::Memory(bytes);
        self.keep(
            OUTPUT,
            shown.sha256.clone(),
            content,
            "application/json",
            None,
        )?;
        let reference = self.artifacts.last().map_or(0, |it| json_size(it.value()));
        let shown = encode(&shown).map_err(RunFailure::invalid(ErrorCode::ArtifactInvalid))?;
        let size = json_size(&shown);
        self.shown = Some(shown);
        Ok(entry + reference + size)
    }
}

#[cfg(test)]
mod tests {
    use kodo_contract::{Plan, ToolFile, ToolResult, sha256_hex};

    use super::*;
    use crate::run::room::LEAST;

    fn ids() -> (RunId, StepId) {
        (RunId::generate(), StepId::tool(255))
    }

    fn recording(files: &[(usize, usize)], stdout: &str) -> Recording {
        let file = |(index, &(name, size)): (usize, &(usize, usize))| ToolFile {
            name: format!("{index:0>name$}"),
            content: Some("x".repeat(size)),
            sha256: sha256_hex("x".repeat(size).as_bytes()),
            size: Some(size as u64),
            encoding: None,
            executable: None,
            stored: None,
        };
        let result = ToolResult {
            provider: "p".into(),
            exit_code: 0,
            stdout: stdout.into(),
            stderr: "e".repeat(300),
            files: files.iter().enumerate().map(file).collect(),
            reason: None,
            report: None,
            workspace: None,
        };
        Recording::of_tool(result, None).ok().unwrap()
    }

    /// What a view has of the step, as JSON.
    fn shown(recording: &Recording, run_id: &RunId, step_id: &StepId) -> u64 {
        let time = "2026-01-02T03:04:05.678Z";
        let output = recording.shown.as_ref().unwrap_or(&recording.output);
        let step = json!({
            "stepId": step_id, "phase": "executing", "output": output, "startedAt": time, "finishedAt": time,
        });
        let artifacts = recording.artifacts.iter().enumerate().map(|(index, it)| {
            let uri = NewArtifact::uri(run_id, step_id, index);
            json!({"kind": it.kind(), "uri": uri, "inline": it.value(), "sha256": "0".repeat(64)})
        });
        // Each with its comma.
        let all = artifacts
            .chain([step])
            .map(|it| it.to_string().len() as u64 + 1);
        all.sum()
    }

    #[test]
    fn what_fits_stays_as_it_is_and_one_byte_more_moves_the_largest() {
        let (run_id, step_id) = ids();
        let mut whole = recording(&[(1, 9000), (1, 20_000)], "out");
        let size = whole.fit(&run_id, &step_id, u64::MAX).unwrap();
        assert_eq!(whole.fit(&run_id, &step_id, size).unwrap(), size);
        assert!(whole.shown.is_none() && whole.large.is_empty());
        // The comma before the first and the quotes of one byte are counted, too.
        assert!(
            size.abs_diff(shown(&whole, &run_id, &step_id)) <= 1 + whole.artifacts.len() as u64
        );

        let files = whole.output["files"].clone();
        let less = whole.fit(&run_id, &step_id, size - 1).unwrap();
        assert!(less < size);
        let StoredOutput { sha256, size, .. } =
            kodo_contract::decode(whole.shown.as_ref().unwrap()).unwrap();
        assert_eq!(whole.large.len(), 1);
        assert_eq!(
            (&whole.large[0].0, whole.large[0].1.size()),
            (&sha256, size)
        );
        assert_eq!(whole.output["files"], files, "what is recorded is whole");
        assert_eq!(whole.artifacts.last().unwrap().kind(), "output");
        assert!(
            less.abs_diff(shown(&whole, &run_id, &step_id)) <= 1 + whole.artifacts.len() as u64
        );
    }

    #[test]
    fn artifacts_follow_the_output_the_largest_first() {
        let (run_id, step_id) = ids();
        let mut step = recording(&[(1, 9000), (1, 20_000)], &"o".repeat(5000));
        let size = step.fit(&run_id, &step_id, 22_000).unwrap();
        assert!(size <= 22_000 - 22_000 / 4, "{size}");
        let stored: Vec<bool> = step
            .artifacts
            .iter()
            .map(|it| it.stored_content().is_some())
            .collect();
        // stdout, stderr, the files, the output.
        assert_eq!(stored, [false, false, false, true, true]);
        assert_eq!(step.artifacts[3].value()["name"], "1");
        assert_eq!(
            step.artifacts[3].value()["sha256"],
            sha256_hex("x".repeat(20_000).as_bytes())
        );
        let least = step.fit(&run_id, &step_id, 4 * LEAST).unwrap();
        assert!(
            least <= 4 * LEAST
                && step
                    .artifacts
                    .iter()
                    .all(|it| it.stored_content().is_some() || json_size(it.value()) < 9000)
        );
    }

    #[test]
    fn a_step_always_fits_into_the_least_and_says_which_files_it_leaves_out() {
        let (run_id, step_id) = ids();
        let mut step = recording(&vec![(900, 10); 3000], &"\u{1}".repeat(60_000));
        let size = step.fit(&run_id, &step_id, LEAST).unwrap();
        assert!(size <= LEAST, "{size}");
        assert!(shown(&step, &run_id, &step_id) <= LEAST);
        assert_eq!(step.output["files"], json!([]));
        assert_eq!(step.output["report"]["artifacts"]["omitted"], 3000);
        let mut some = recording(&vec![(900, 10); 3000], "");
        let size = some.fit(&run_id, &step_id, 1 << 20).unwrap();
        assert!(size <= 1 << 20);
        let left = some.output["files"].as_array().unwrap().len();
        assert!((700..1000).contains(&left), "{left}");
        let files = some.artifacts.iter().filter(|it| it.kind() == "file");
        assert_eq!(files.count(), left);
    }

    #[test]
    fn a_plan_with_more_diffs_than_can_be_listed_is_no_plan() {
        let (run_id, step_id) = ids();
        let plan = Plan {
            prompt: "p".into(),
            tool_calls: vec![],
            responses: vec![],
            diffs: vec![json!(1); 50_000],
        };
        let plan_json = encode(&plan).unwrap();
        let output = json!({"plan": plan_json});
        let mut recording = Recording::of_plan(&plan, plan_json, output).ok().unwrap();
        let error = recording.fit(&run_id, &step_id, 8 << 20).unwrap_err();
        assert_eq!(error.code, "plan_invalid");
        assert!(error.message.contains("50000 diffs"), "{}", error.message);
    }
}
