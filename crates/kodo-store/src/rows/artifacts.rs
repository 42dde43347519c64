//! Artifacts: what a step produced, with the hash of its content.

use kodo_contract::{ContentHash, RunId, StepId, StoredContent, canonical_json, sha256_hex};
use serde_json::Value;
use time::OffsetDateTime;

use super::json::{content_hash, stored_json};
use crate::{Store, StoreError};

/// Something that a step produced, before it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewArtifact {
    /// What it is, for people and programs: `plan`, `stdout`, `file`, …
    pub(crate) kind: String,
    /// The content, or what refers to it.
    pub(crate) inline: Value,
    /// Where the content is, if it is not in the row.
    pub(crate) stored: Option<StoredContent>,
}

impl NewArtifact {
    /// One whose content is in its row.
    pub fn inline(kind: &str, inline: Value) -> Self {
        Self {
            kind: kind.to_owned(),
            inline,
            stored: None,
        }
    }

    /// One whose content is in the artifact store; `reference` is `stored` as JSON, already validated.
    pub fn stored(kind: &str, stored: StoredContent, reference: Value) -> Self {
        Self {
            kind: kind.to_owned(),
            inline: reference,
            stored: Some(stored),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The content if it is in the row, otherwise what refers to it.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.inline
    }

    /// Where the content is, if it is not in the row.
    #[must_use]
    pub fn stored_content(&self) -> Option<&StoredContent> {
        self.stored.as_ref()
    }

    /// Columns `canonical` and `sha256`: the text that is hashed and its hash, or the hash of the content that is stored.
    pub(crate) fn hashed(&self) -> (Option<String>, String) {
        match &self.stored {
            Some(stored) => (None, stored.sha256.as_str().to_owned()),
            None => {
                let text = canonical_json(&self.inline);
                let hash = sha256_hex(text.as_bytes());
                (Some(text), hash)
            }
        }
    }

    /// Where the artifact of a step at an index is.
    #[must_use]
    pub fn uri(run_id: &RunId, step_id: &StepId, index: usize) -> String {
        format!("artifact://{run_id}/{step_id}/{index}")
    }
}

/// An artifact as its row has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactRow {
    /// The run, as text, so that a row that was changed by hand can be shown, too.
    pub run_id: String,
    /// The step.
    pub step_id: String,
    /// Its place among those of the step.
    pub index: i32,
    /// What it is.
    pub kind: String,
    /// Where it is among the run's artifacts.
    pub uri: String,
    /// The content, or what refers to it.
    pub inline: Value,
    /// The hash of the content: of its canonical JSON if it is in the row, of its bytes if it is stored.
    pub sha256: String,
    /// Length and media type of content that is stored.
    pub stored: Option<(u64, String)>,
}

impl ArtifactRow {
    /// The hash of its canonical JSON.
    #[must_use]
    pub fn inline_hash(&self) -> String {
        content_hash(&self.inline)
    }
}

/// How content was found by its hash.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The row's hash: its canonical JSON, or what is stored under it.
    Row(ArtifactRow),
    /// The hash of the file in the row.
    File(ArtifactRow),
    /// What somebody uploaded, with its length.
    Upload(u64),
}

/// The columns of an [`ArtifactRow`].
const COLUMNS: &str = "a.run_id, a.step_id, a.idx, a.kind, a.uri, a.inline::text, a.sha256, a.stored_bytes, a.media_type";

type Columns = (
    String,
    String,
    i32,
    String,
    String,
    Option<String>,
    String,
    Option<i64>,
    Option<String>,
);

fn row(columns: Columns) -> Result<ArtifactRow, StoreError> {
    let (run_id, step_id, index, kind, uri, inline, sha256, bytes, media_type) = columns;
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    Ok(ArtifactRow {
        run_id,
        step_id,
        index,
        kind,
        uri,
        inline: inline.as_deref().map_or(Ok(Value::Null), stored_json)?,
        sha256,
        stored: bytes.zip(media_type),
    })
}

impl Store {
    /// The artifacts of a run, by step, then index; `None` if there is no such run.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if a row is unreadable.
    pub async fn artifacts_of(&self, run: &RunId) -> Result<Option<Vec<ArtifactRow>>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM app.artifacts a WHERE a.run_id = $1 ORDER BY a.step_id, a.idx"
        );
        let rows: Vec<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(run.as_str())
            .fetch_all(&self.pool)
            .await?;
        if rows.is_empty() && !self.run_exists(run).await? {
            return Ok(None);
        }
        rows.into_iter()
            .map(row)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Whether there is such a run.
    ///
    /// # Errors
    /// As any statement.
    pub async fn run_exists(&self, run: &RunId) -> Result<bool, StoreError> {
        let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM app.runs WHERE id = $1)");
        Ok(exists.bind(run.as_str()).fetch_one(&self.pool).await?)
    }

    /// An artifact whose content has this hash; `None` if no row has this hash.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if a row is unreadable.
    pub async fn artifact_by_hash(&self, hash: &ContentHash) -> Result<Option<Found>, StoreError> {
        // Whichever of the rows with that hash comes first: their content is the same.
        let statement = format!(
            "(SELECT {COLUMNS} FROM app.artifacts a WHERE a.sha256 = $1 LIMIT 1)
             UNION ALL
             (SELECT {COLUMNS} FROM app.artifacts a
              WHERE a.kind = 'file' AND a.stored_bytes IS NULL AND a.inline ->> 'sha256' = $1 LIMIT 1)
             LIMIT 1"
        );
        let found: Option<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(hash.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(found) = found.map(row).transpose()? else {
            return self.upload(hash).await;
        };
        Ok(Some(if found.sha256 == hash.as_str() {
            Found::Row(found)
        } else {
            Found::File(found)
        }))
    }

    async fn upload(&self, hash: &ContentHash) -> Result<Option<Found>, StoreError> {
        let size: Option<i64> =
            sqlx::query_scalar("SELECT bytes FROM app.uploads WHERE sha256 = $1")
                .bind(hash.as_str())
                .fetch_optional(&self.pool)
                .await?;
        Ok(size
            .and_then(|size| u64::try_from(size).ok())
            .map(Found::Upload))
    }

    /// Forgets uploads of before a time that no intent names; returns how many there were. With `dry_run` only counts them.
    ///
    /// # Errors
    /// As any statement.
    pub async fn forget_uploads(
        &self,
        older_than: OffsetDateTime,
        dry_run: bool,
    ) -> Result<u64, StoreError> {
        // An intent that is stored meanwhile finds its upload gone when it is run, as one that is stored later does.
        let which = "u.created_at < $1 AND NOT EXISTS (
                         SELECT FROM app.intents i WHERE i.payload #>> '{inputs,workspace}' = u.sha256)";
        let statement = match dry_run {
            true => format!("SELECT count(*) FROM app.uploads u WHERE {which}"),
            false => format!(
                "WITH gone AS (DELETE FROM app.uploads u WHERE {which} RETURNING 1) SELECT count(*) FROM gone"
            ),
        };
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .bind(older_than)
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Content of workspaces and uploads: up to `limit` hashes with their lengths, by hash, after the given one.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if a row is unreadable.
    pub async fn further_content_after(
        &self,
        after: Option<&ContentHash>,
        limit: i64,
    ) -> Result<Vec<(ContentHash, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT sha256, max(bytes) FROM (
                 SELECT sha256, bytes FROM app.workspace_objects WHERE sha256 > $1
                 UNION ALL
                 SELECT sha256, bytes FROM app.uploads WHERE sha256 > $1
             ) AS content GROUP BY sha256 ORDER BY sha256 LIMIT $2",
        )
        .bind(after.map_or("", ContentHash::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let read = |(hash, bytes): (String, i64)| {
            let read = ContentHash::parse(&hash).zip(u64::try_from(bytes).ok());
            read.ok_or_else(|| StoreError::Corrupt(format!("content {hash} of {bytes} bytes")))
        };
        rows.into_iter().map(read).collect()
    }

    /// Up to `limit` artifacts of all runs, by run, step and index, after the given one.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if a row is unreadable.
    pub async fn artifacts_after(
        &self,
        after: Option<&ArtifactRow>,
        limit: i64,
    ) -> Result<Vec<ArtifactRow>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM app.artifacts a WHERE (a.run_id, a.step_id, a.idx) > ($1, $2, $3)
             ORDER BY a.run_id, a.step_id, a.idx LIMIT $4"
        );
        let rows: Vec<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(after.map_or("", |row| &row.run_id))
            .bind(after.map_or("", |row| &row.step_id))
            .bind(after.map_or(-1, |row| row.index))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(row).collect()
    }
}
