//! Records a step: its output and its artifacts, of which the large ones go into the artifact store first.
//!
//! The order makes it safe: content is written durably, then locked against deletion, then found to be still there, and
//! only then named by a row. A crash in between leaves content without a row, which `kodo artifacts gc` removes.

mod fit;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kodo_contract::{
    ContentHash, ErrorCode, Object, Plan, StoredContent, ToolFile, ToolResult, canonical_json,
    encode,
};
use kodo_sandbox::Spool;
use kodo_store::content::{
    ArtifactError, STORED_FROM, media_type_of, media_type_of_content, shortened,
};
use kodo_store::{NewArtifact, NewStep, Recorded};
use serde_json::{Value, json};

use crate::failpoint;
use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::files::inline_content;
use crate::run::large::Large;
use crate::run::retry::{artifact_failure, retry_store};
use crate::run::workspace::{Saved, disk};

/// Most bytes of content in the rows of one step.
const MAX_INLINE: usize = 4 * 1024 * 1024;

/// Requests to the artifact store that one step makes at the same time.
const AT_ONCE: usize = 8;

/// How often content is stored before it is looked for under the lock.
const ATTEMPTS: usize = 3;

/// What a step is going to record, and the content that has to be in the artifact store before.
pub(crate) struct Recording {
    /// The step's output.
    pub(crate) output: Value,
    /// What a view shows in its place, if it has no room for it.
    pub(crate) shown: Option<Value>,
    artifacts: Vec<NewArtifact>,
    large: Vec<(ContentHash, Large)>,
    /// Content that its workspace needs.
    workspace: Vec<Object>,
    /// Bytes of content that the rows hold.
    inline: usize,
}

impl Recording {
    /// What a planning step records. `output` holds the plan; `plan_json` is the validated plan.
    pub(crate) fn of_plan(
        plan: &Plan,
        plan_json: Value,
        output: Value,
    ) -> Result<Self, RunFailure> {
        let mut recording = Self::empty();
        recording.output = output;
        recording.keep_json("plan", plan_json)?;
        for diff in &plan.diffs {
            recording.keep_json("diff", diff.clone())?;
        }
        Ok(recording)
    }

    /// What a tool step records: stdout, stderr, then the files, in this order. Content that goes into the artifact
    /// store is left out of the output; files that the sandbox left out are in `content`.
    pub(crate) fn of_tool(
        mut result: ToolResult,
        content: Option<&Spool>,
    ) -> Result<Self, RunFailure> {
        // Validation before recording, of the result as the sandbox returned it.
        let whole = encode(&result).map_err(RunFailure::invalid(ErrorCode::ToolResultInvalid))?;
        let mut recording = Self::empty();
        recording.keep_text("stdout", &mut result.stdout)?;
        if !result.stderr.is_empty() {
            recording.keep_text("stderr", &mut result.stderr)?;
        }
        for file in &mut result.files {
            match file.stored {
                Some(true) => recording.keep_stored_file(file, content)?,
                _ => recording.keep_file(file)?,
            }
        }
        recording.output = match recording.large.is_empty() {
            true => whole,
            false => encode(&result).map_err(RunFailure::invalid(ErrorCode::ToolResultInvalid))?,
        };
        Ok(recording)
    }

    fn empty() -> Self {
        Self {
            output: Value::Null,
            shown: None,
            artifacts: Vec::new(),
            large: Vec::new(),
            workspace: Vec::new(),
            inline: 0,
        }
    }

    fn keep_json(&mut self, kind: &str, value: Value) -> Result<(), RunFailure> {
        let (bytes, media_type) = match &value {
            // A diff that is a string is stored as its text, without quotes.
            Value::String(text) => (text.clone(), media_type_of(text.as_bytes())),
            other => (canonical_json(other), "application/json"),
        };
        if bytes.len() < STORED_FROM {
            self.artifacts.push(NewArtifact::inline(kind, value));
            return Ok(());
        }
        self.keep_large(kind, Bytes::from(bytes), media_type, None)
            .map(drop)
    }

    /// Whether content of this length goes into its row: if it is small and the rows together stay small. A statement
    /// has to fit into one message of Postgres, in which a byte of text can take six bytes, and is sent twice.
    fn is_for_a_row(&mut self, length: usize) -> bool {
        let fits = length < STORED_FROM && self.inline + length <= MAX_INLINE;
        if fits {
            self.inline += length;
        }
        fits
    }

    fn keep_text(&mut self, kind: &str, text: &mut String) -> Result<(), RunFailure> {
        if self.is_for_a_row(text.len()) {
            self.artifacts
                .push(NewArtifact::inline(kind, text.clone().into()));
            return Ok(());
        }
        let bytes = Bytes::from(text.clone());
        let hash = self.keep_large(kind, bytes, media_type_of(text.as_bytes()), None)?;
        *text = shortened(text, &hash);
        Ok(())
    }

    fn keep_file(&mut self, file: &mut ToolFile) -> Result<(), RunFailure> {
        let content = inline_content(file)?;
        if self.is_for_a_row(content.len()) {
            let mut inline =
                json!({ "name": file.name, "content": file.content, "sha256": file.sha256 });
            // Content without this is text.
            if let Some(encoding) = &file.encoding {
                inline["encoding"] = encoding.clone().into();
            }
            if file.executable == Some(true) {
                inline["executable"] = true.into();
            }
            self.artifacts.push(NewArtifact::inline("file", inline));
            return Ok(());
        }
        let media_type = media_type_of(&content);
        file.size = Some(content.len() as u64);
        let hash = self.keep_large("file", content, media_type, Some(&*file))?;
        file.sha256 = hash.into_string();
        file.content = None;
        file.encoding = None;
        file.stored = Some(true);
        Ok(())
    }

    /// A file whose content is already where the artifact store takes it from.
    fn keep_stored_file(
        &mut self,
        file: &ToolFile,
        content: Option<&Spool>,
    ) -> Result<(), RunFailure> {
        let place = ContentHash::parse(&file.sha256).and_then(|hash| {
            let content = content?;
            Some((
                content.find(&hash)?,
                content.open(&hash)?,
                content.file(),
                hash,
            ))
        });
        let Some((range, reader, spool, hash)) = place else {
            let text = format!("the content of the file {:?} has not come", file.name);
            return Err(RunFailure::new(ErrorCode::ToolResultInvalid, text));
        };
        let media_type = media_type_of_content(reader).map_err(disk)?;
        self.keep(
            "file",
            hash,
            Large::File(spool, range),
            media_type,
            Some(file),
        )
    }

    fn keep_large(
        &mut self,
        kind: &str,
        bytes: Bytes,
        media_type: &str,
        file: Option<&ToolFile>,
    ) -> Result<ContentHash, RunFailure> {
        let hash = ContentHash::of(&bytes);
        self.keep(kind, hash.clone(), Large::Memory(bytes), media_type, file)?;
        Ok(hash)
    }

    fn keep(
        &mut self,
        kind: &str,
        hash: ContentHash,
        content: Large,
        media_type: &str,
        file: Option<&ToolFile>,
    ) -> Result<(), RunFailure> {
        let named = file.map(|file| (file.name.clone(), file.executable));
        let artifact = self.stored(kind, hash, content, media_type, named)?;
        self.artifacts.push(artifact);
        Ok(())
    }

    /// An artifact whose content goes into the artifact store. A file has a name, and can be executable.
    fn stored(
        &mut self,
        kind: &str,
        hash: ContentHash,
        content: Large,
        media_type: &str,
        file: Option<(String, Option<bool>)>,
    ) -> Result<NewArtifact, RunFailure> {
        let (name, executable) = file.unzip();
        let stored = StoredContent {
            stored: true,
            name,
            media_type: media_type.to_owned(),
            size: content.size(),
            sha256: hash.clone(),
            executable: executable.flatten(),
        };
        let reference = encode(&stored).map_err(RunFailure::invalid(ErrorCode::ArtifactInvalid))?;
        self.large.push((hash, content));
        Ok(NewArtifact::stored(kind, stored, reference))
    }

    /// Adds the workspace that the step leaves. Its reference is in the output already.
    pub(crate) fn keep_workspace(&mut self, saved: Saved) {
        self.large.extend(saved.new);
        self.workspace = saved.objects;
    }

    /// What the step's workspace needs of the artifact store.
    pub(crate) fn workspace(&self) -> &[Object] {
        &self.workspace
    }

    /// What the step produced, in order.
    pub(crate) fn artifacts(&self) -> &[NewArtifact] {
        &self.artifacts
    }

    /// Puts the large content into the artifact store, then records the step.
    pub(crate) async fn record(
        &self,
        ctx: &RunContext,
        step: &NewStep<'_>,
    ) -> Result<Recorded, RunFailure> {
        if self.large.is_empty() {
            return retry_store(|| ctx.store.record_step(step)).await;
        }
        let hashes: Vec<ContentHash> = self.large.iter().map(|(hash, _)| hash.clone()).collect();
        let mut attempts = 0;
        loop {
            let watched = retry_store(|| ctx.store.watch_content(&hashes)).await?;
            // Without the lock: it occupies a connection, and the artifact store may be slow.
            self.put(ctx).await?;
            failpoint(&format!("{}:stored", step.step_id));
            attempts += 1;
            let recorded = retry_store(|| async {
                let held = ctx.store.hold_content(&hashes).await?;
                // Content under the lock stays.
                let there = match held.is_untouched_since(watched) {
                    true => Ok(true),
                    // A garbage collection goes on and on.
                    false if attempts >= ATTEMPTS => self.is_stored(ctx).await,
                    false => Ok(false),
                };
                match there {
                    Ok(true) => held.record_step(step).await.map(|it| Ok(Some(it))),
                    Ok(false) => Ok(Ok(None)),
                    Err(error) if error.is_transient() => Ok(Ok(None)),
                    Err(error) => Ok(Err(artifact_failure(&error))),
                }
            });
            if let Some(recorded) = recorded.await?? {
                return Ok(recorded);
            }
        }
    }

    /// Puts the large content into the artifact store that is not there already, some of it at once.
    async fn put(&self, ctx: &RunContext) -> Result<(), RunFailure> {
        let puts = stream::iter(self.large.clone()).map(|(hash, content)| async move {
            let put = || content.put(&*ctx.artifacts, &hash);
            ctx.retry_artifacts(put).await
        });
        let puts = puts.buffer_unordered(AT_ONCE);
        puts.try_for_each(async |()| Ok(())).await
    }

    /// Whether all large content is in the artifact store. Asks once, without retries.
    async fn is_stored(&self, ctx: &RunContext) -> Result<bool, ArtifactError> {
        let looks = stream::iter(self.large.clone())
            .map(|(hash, content)| async move { is_there(ctx, &hash, &content).await });
        let looks = looks.buffer_unordered(AT_ONCE);
        looks.try_all(async |there| there).await
    }
}

async fn is_there(
    ctx: &RunContext,
    hash: &ContentHash,
    content: &Large,
) -> Result<bool, ArtifactError> {
    let there = ctx.artifacts.head(hash).await?;
    Ok(there.is_some_and(|held| held.size == content.size()))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn result(stdout: &str, files: Vec<ToolFile>) -> ToolResult {
        ToolResult {
            provider: "p".into(),
            exit_code: 0,
            stdout: stdout.into(),
            stderr: String::new(),
            files,
            reason: None,
            report: None,
            workspace: None,
        }
    }

    fn file(content: &[u8]) -> ToolFile {
        ToolFile {
            name: "f".into(),
            content: Some(STANDARD.encode(content)),
            sha256: ContentHash::of(content).into_string(),
            size: Some(content.len() as u64),
            encoding: Some("base64".into()),
            executable: Some(true),
            stored: None,
        }
    }

    #[test]
    fn content_is_stored_from_64_kib_on_and_not_a_byte_earlier() {
        let below = Recording::of_tool(result(&"a".repeat(65_535), vec![file(&[0; 65_535])]), None);
        let below = below.ok().unwrap();
        assert!(below.large.is_empty());
        assert_eq!(below.output["stdout"].as_str().unwrap().len(), 65_535);
        assert_eq!(below.output["files"][0]["encoding"], "base64");

        let from = Recording::of_tool(result(&"a".repeat(65_536), vec![file(&[0; 65_536])]), None);
        let from = from.ok().unwrap();
        let sizes: Vec<u64> = from.large.iter().map(|(_, it)| it.size()).collect();
        assert_eq!(sizes, [65_536, 65_536]);
        let hash = ContentHash::of(&[0; 65_536]);
        assert_eq!(
            from.output["files"][0],
            json!({"name": "f", "sha256": hash, "size": 65_536, "executable": true, "stored": true})
        );
        let stdout = from.output["stdout"].as_str().unwrap();
        let line = format!(
            "is artifact {}]",
            ContentHash::of("a".repeat(65_536).as_bytes())
        );
        assert!(stdout.contains(&line) && stdout.len() <= STORED_FROM);
        // The row as a whole stays small, whatever the content was.
        assert!(from.output.to_string().len() < 2 * STORED_FROM);
    }

    #[test]
    fn many_small_files_do_not_make_a_row_that_no_message_holds() {
        let files = (0..200)
            .map(|n| ToolFile {
                name: format!("f{n}"),
                ..file(&[1; 60_000])
            })
            .collect();
        let recording = Recording::of_tool(result("", files), None).ok().unwrap();
        let inline = recording.artifacts.len() - 1 - recording.large.len();
        assert_eq!(inline, MAX_INLINE / 60_000);
        assert_eq!(recording.output["files"][199]["stored"], true);
    }

    #[test]
    fn a_large_diff_is_its_text_and_a_large_plan_its_json() {
        let plan = Plan {
            prompt: "p".repeat(70_000),
            tool_calls: vec![],
            responses: vec![],
            diffs: vec![json!("d".repeat(70_000)), json!({"small": 1})],
        };
        let plan_json = encode(&plan).unwrap();
        let recording = Recording::of_plan(&plan, plan_json.clone(), json!(null))
            .ok()
            .unwrap();
        let large: Vec<&[u8]> = recording
            .large
            .iter()
            .map(|(_, content)| match content {
                Large::Memory(bytes) => &bytes[..],
                Large::File(..) => panic!("not in memory"),
            })
            .collect();
        assert_eq!(
            large,
            [
                canonical_json(&plan_json).as_bytes(),
                "d".repeat(70_000).as_bytes()
            ]
        );
        assert_eq!(recording.artifacts().len(), 3);
        assert_eq!(
            recording.artifacts()[2],
            NewArtifact::inline("diff", json!({"small": 1}))
        );
    }

    #[test]
    fn a_file_without_content_is_no_result() {
        let mut empty = file(b"");
        empty.content = None;
        let refused = Recording::of_tool(result("", vec![empty]), None)
            .err()
            .unwrap();
        assert_eq!(refused.code, "tool_result_invalid");
        let mut odd = file(b"");
        odd.content = Some("!".into());
        let refused = Recording::of_tool(result("", vec![odd]), None)
            .err()
            .unwrap();
        assert_eq!(refused.message, r#"the file "f" is no base64"#);
    }
}
