//! What a step leaves: its output and its artifacts, of which the large ones go into the artifact store first.
//!
//! The order is what makes it safe: content is written durably, then held so that nobody deletes it, found to be there,
//! and only then named by a row. A crash in between leaves content without a row, which `kodo artifacts gc` removes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kodo_contract::{
    ContentHash, ErrorCode, Invalid, Plan, RunId, StepId, StoredContent, ToolFile, ToolResult,
    canonical_json, decode, encode,
};
use kodo_store::content::{ArtifactError, STORED_FROM, media_type_of, read, shortened};
use kodo_store::{NewArtifact, NewStep, Recorded};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::failpoint;
use crate::failure::RunFailure;
use crate::run::durable::weather;
use crate::run::workflow::Workshop;

/// The most bytes of content in the rows of one step.
const MOST_INLINE: usize = 4 * 1024 * 1024;

/// What a step is going to record, and the content that has to be in the store by then.
pub(crate) struct Recording {
    /// The step's output.
    pub(crate) output: Value,
    artifacts: Vec<NewArtifact>,
    large: Vec<(ContentHash, Bytes)>,
    /// Bytes of content that its rows hold.
    inline: usize,
}

impl Recording {
    /// What a planning step records; `output` holds the plan, which passed its gate as `plan_json`.
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

    /// What an executing step records: what the tool printed, then its files, in a stable order. Content that goes
    /// into the store is not in the output as well.
    pub(crate) fn of_tool(mut result: ToolResult) -> Result<Self, RunFailure> {
        // Gate 3: what a step produced is checked before it is kept, as the sandbox gave it.
        let whole = encode(&result).map_err(gate(ErrorCode::ToolResultInvalid))?;
        let mut recording = Self::empty();
        recording.keep_text("stdout", &mut result.stdout)?;
        if !result.stderr.is_empty() {
            recording.keep_text("stderr", &mut result.stderr)?;
        }
        for file in &mut result.files {
            recording.keep_file(file)?;
        }
        recording.output = match recording.large.is_empty() {
            true => whole,
            false => encode(&result).map_err(gate(ErrorCode::ToolResultInvalid))?,
        };
        Ok(recording)
    }

    fn empty() -> Self {
        Self {
            output: Value::Null,
            artifacts: Vec::new(),
            large: Vec::new(),
            inline: 0,
        }
    }

    fn keep_json(&mut self, kind: &str, value: Value) -> Result<(), RunFailure> {
        let (bytes, media_type) = match &value {
            // A diff that is a text is its text.
            Value::String(text) => (text.clone(), media_type_of(text.as_bytes())),
            other => (canonical_json(other), "application/json"),
        };
        if bytes.len() < STORED_FROM {
            self.artifacts.push(NewArtifact::inline(kind, value));
            return Ok(());
        }
        self.keep_large(kind, bytes.into(), media_type, None)
            .map(drop)
    }

    /// Whether content of this length goes into its row: it is small, and so is all of it together. A statement has to
    /// fit into a message of Postgres, where a byte of a text can take six, twice.
    fn is_for_a_row(&mut self, length: usize) -> bool {
        let fits = length < STORED_FROM && self.inline + length <= MOST_INLINE;
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
        let content = bytes_of(file)?;
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

    fn keep_large(
        &mut self,
        kind: &str,
        bytes: Bytes,
        media_type: &str,
        file: Option<&ToolFile>,
    ) -> Result<ContentHash, RunFailure> {
        let hash = ContentHash::of(&bytes);
        let stored = StoredContent {
            stored: true,
            name: file.map(|file| file.name.clone()),
            media_type: media_type.to_owned(),
            size: bytes.len() as u64,
            sha256: hash.clone(),
            executable: file.and_then(|file| file.executable),
        };
        let reference = encode(&stored).map_err(gate(ErrorCode::ArtifactInvalid))?;
        self.artifacts
            .push(NewArtifact::stored(kind, stored, reference));
        self.large.push((hash.clone(), bytes));
        Ok(hash)
    }

    /// What the step produced, in order.
    pub(crate) fn artifacts(&self) -> &[NewArtifact] {
        &self.artifacts
    }

    /// Stores what is large, then records the step.
    pub(crate) async fn record(
        &self,
        shop: &Workshop,
        step: &NewStep<'_>,
    ) -> Result<Recorded, RunFailure> {
        if self.large.is_empty() {
            return weather(|| shop.store.record_step(step)).await;
        }
        for (_, bytes) in &self.large {
            self.patiently(shop, || shop.artifacts.put(bytes.clone()))
                .await?;
        }
        failpoint(&format!("{}:stored", step.step_id));
        let hashes: Vec<ContentHash> = self.large.iter().map(|(hash, _)| hash.clone()).collect();
        loop {
            let recorded = weather(|| async {
                let held = shop.store.hold_content(&hashes).await?;
                // Held, it stays; before that, somebody may have found that no row names it.
                match self.is_stored(shop).await {
                    Ok(true) => held.record_step(step).await.map(|it| Ok(Some(it))),
                    Ok(false) => Ok(Ok(None)),
                    Err(error) if error.is_transient() => Ok(Ok(None)),
                    Err(error) => Ok(Err(store_failure(&error))),
                }
            });
            if let Some(recorded) = recorded.await?? {
                return Ok(recorded);
            }
            // Not while it is held: that takes a connection, and a store may let one wait for a long time.
            for (hash, bytes) in &self.large {
                if !self.patiently(shop, || is_there(shop, hash, bytes)).await? {
                    self.patiently(shop, || shop.artifacts.put(bytes.clone()))
                        .await?;
                }
            }
        }
    }

    /// Whether everything large is in the store, asked once.
    async fn is_stored(&self, shop: &Workshop) -> Result<bool, ArtifactError> {
        for (hash, bytes) in &self.large {
            if !is_there(shop, hash, bytes).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Calls the store until it answers, for as long as a step may wait for it.
    async fn patiently<T, F, Fut>(&self, shop: &Workshop, mut call: F) -> Result<T, RunFailure>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ArtifactError>>,
    {
        const FIRST: Duration = Duration::from_millis(100);
        const MOST: Duration = Duration::from_secs(5);
        let deadline = Instant::now() + shop.artifact_patience;
        let mut pause = FIRST;
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.is_transient() || Instant::now() + pause > deadline {
                return Err(store_failure(&error));
            }
            tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "a step waits for the artifact store");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MOST);
        }
    }
}

async fn is_there(
    shop: &Workshop,
    hash: &ContentHash,
    bytes: &Bytes,
) -> Result<bool, ArtifactError> {
    let there = shop.artifacts.head(hash).await?;
    Ok(there.is_some_and(|held| held.size == bytes.len() as u64))
}

/// The files that a recorded step left, as its row has them.
pub(crate) async fn files_of_step(
    shop: &Workshop,
    run_id: &RunId,
    step_id: &StepId,
) -> Result<Vec<ToolFile>, RunFailure> {
    let output = weather(|| shop.store.step_output(run_id, step_id))
        .await?
        .ok_or_else(|| {
            let text = format!("step {step_id} of run {run_id} has no row");
            RunFailure::new(ErrorCode::StepRowMissing, text)
        })?;
    let result: ToolResult = decode(&output).map_err(gate(ErrorCode::StoredResultInvalid))?;
    Ok(result.files)
}

/// The content of such a file.
pub(crate) async fn content_of_file(shop: &Workshop, file: &ToolFile) -> Result<Bytes, RunFailure> {
    match file.stored {
        Some(true) => stored_bytes(shop, file).await,
        _ => bytes_of(file),
    }
}

async fn stored_bytes(shop: &Workshop, file: &ToolFile) -> Result<Bytes, RunFailure> {
    let unreadable = || {
        let text = format!(
            "the step's row does not say where its file {:?} is",
            file.name
        );
        RunFailure::new(ErrorCode::StoredResultInvalid, text)
    };
    let hash = ContentHash::parse(&file.sha256).ok_or_else(unreadable)?;
    let size = file.size.ok_or_else(unreadable)?;
    let whole = Recording::empty();
    whole
        .patiently(shop, || async {
            use futures_util::TryStreamExt;
            let pieces = read(&*shop.artifacts, &hash, size, None).await?;
            let pieces: Vec<Bytes> = pieces.try_collect().await?;
            Ok(Bytes::from(pieces.concat()))
        })
        .await
}

/// The content of a file that is in its row.
fn bytes_of(file: &ToolFile) -> Result<Bytes, RunFailure> {
    let invalid = |what: &str| {
        let text = format!("the file {:?} {what}", file.name);
        RunFailure::new(ErrorCode::ToolResultInvalid, text)
    };
    let content = file
        .content
        .as_ref()
        .ok_or_else(|| invalid("has no content"))?;
    match file.encoding.as_deref() {
        None => Ok(Bytes::copy_from_slice(content.as_bytes())),
        // The schema knows no other.
        Some(_) => match STANDARD.decode(content) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(invalid("is no base64")),
        },
    }
}

fn store_failure(error: &ArtifactError) -> RunFailure {
    RunFailure::new(
        error.code(),
        format!("{error}; ARTIFACT_STORE says where it is"),
    )
}

fn gate(code: ErrorCode) -> impl Fn(Invalid) -> RunFailure {
    move |invalid| RunFailure::new(code, invalid.to_string())
}

#[cfg(test)]
mod tests {
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
        let below = Recording::of_tool(result(&"a".repeat(65_535), vec![file(&[0; 65_535])]));
        let below = below.ok().unwrap();
        assert!(below.large.is_empty());
        assert_eq!(below.output["stdout"].as_str().unwrap().len(), 65_535);
        assert_eq!(below.output["files"][0]["encoding"], "base64");

        let from = Recording::of_tool(result(&"a".repeat(65_536), vec![file(&[0; 65_536])]));
        let from = from.ok().unwrap();
        let sizes: Vec<usize> = from.large.iter().map(|(_, bytes)| bytes.len()).collect();
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
        let recording = Recording::of_tool(result("", files)).ok().unwrap();
        let inline = recording.artifacts.len() - 1 - recording.large.len();
        assert_eq!(inline, MOST_INLINE / 60_000);
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
            .map(|(_, bytes)| &bytes[..])
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
        let refused = Recording::of_tool(result("", vec![empty])).err().unwrap();
        assert_eq!(refused.code, "tool_result_invalid");
        let mut odd = file(b"");
        odd.content = Some("!".into());
        let refused = Recording::of_tool(result("", vec![odd])).err().unwrap();
        assert_eq!(refused.message, r#"the file "f" is no base64"#);
    }
}
