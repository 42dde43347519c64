//! The invariants: queries in db/invariants, each of which returns what offends against the sentence at its top.
//!
//! What they say of the workflow engine they know from temporary tables of their session, since its rows may be in
//! another database (see sql/session.sql).

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgCopyIn;
use sqlx::postgres::types::PgInterval;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::rows::{content_hash, stored_json};
use crate::{DatabaseConfig, StoreError, migrations};

macro_rules! invariants {
    ($($name:literal),* $(,)?) => {
        /// The invariants, in the order in which they are reported. The query is db/invariants/NAME.sql.
        pub const INVARIANTS: [&str; 17] = [$($name),*];

        /// Their queries, in the same order.
        const QUERIES: [&str; 17] = [$(include_str!(concat!("../../../db/invariants/", $name, ".sql"))),*];
    };
}

invariants![
    "no_run_stranded",
    "no_effect_twice",
    "one_execution",
    "statuses_agree",
    "succeeded_runs_complete",
    "failed_runs_say_why",
    "artifacts_complete",
    "artifact_hashes_fit",
    "workspaces_kept",
    "ids_not_reused",
    "workflows_have_runs",
    "checkpoints_match_steps",
    "marks_match_workflows",
    "idempotency_keys_answer",
    "migrations_at_head",
    "schemas_apart",
    "one_system_database",
];

/// The invariant whose query skips the rows that do not keep the text that was hashed: those are checked in Rust.
const HASHES: &str = "artifact_hashes_fit";

/// One invariant, and how much it was held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invariant {
    /// Its name, one of [`INVARIANTS`].
    pub name: &'static str,
    /// What must hold.
    pub sentence: String,
    /// How many rows it looks at. Nothing offends among none.
    pub looked_at: i64,
    /// What these rows are.
    pub units: String,
    query: &'static str,
}

/// Sentence, units and counting query of an invariant, from the comment at the top of its file.
fn header(query: &str) -> (String, String, String) {
    let lines: Vec<&str> = query
        .lines()
        .map_while(|line| line.strip_prefix("-- "))
        .collect();
    let header = lines.join(" ");
    let (sentence, rest) = header.split_once(" Looks at ").unwrap_or((&header, ""));
    let (units, count) = rest.split_once(": ").unwrap_or((rest, ""));
    (sentence.to_owned(), units.to_owned(), count.to_owned())
}

/// One row that offends against an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// What offends: an id, a table.
    pub subject: String,
    /// Why.
    pub finding: String,
    /// How long this may last on a working service, because the sweep repairs it; `None` if nothing repairs it.
    pub allowed: Option<Duration>,
}

/// A session that looks at the invariants. It writes to temporary tables of its own and to nothing else.
pub struct Evidence {
    connection: PgConnection,
    newest: Option<i64>,
    /// The first run that is looked at, once there was a look; the empty text if all of them are.
    first_run: Option<String>,
}

impl Evidence {
    /// Connects. With `newest`, only that many runs are looked at, those that were made last, with their steps, artifacts
    /// and workflows; what belongs to no run is looked at as a whole.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server does not answer in time or has no such database.
    pub async fn connect(app: &DatabaseConfig, newest: Option<i64>) -> Result<Self, StoreError> {
        Ok(Self {
            connection: app.connect("kodo-prove").await?,
            newest,
            first_run: None,
        })
    }

    /// Which product database this is, see [`Store::instance`](crate::Store::instance).
    ///
    /// # Errors
    /// As any statement.
    pub async fn instance(&mut self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM app.instance")
            .fetch_one(&mut self.connection)
            .await?)
    }

    /// Begins a look: from here on every statement sees the rows of this moment. What was loaded is forgotten. The
    /// server itself refuses to write to a permanent table until [`Evidence::end`].
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql(include_str!("../sql/session.sql"))
            .execute(&mut self.connection)
            .await?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut self.connection)
            .await?;
        // The first statement after BEGIN is what fixes the moment. A later look begins at the same run as the first.
        let first_run: String = sqlx::query_scalar(
            "UPDATE pg_temp.proof_window SET first_run = coalesce(
                 $1, (SELECT id FROM app.runs WHERE $2 IS NOT NULL ORDER BY id DESC OFFSET $2 - 1 LIMIT 1), '')
             RETURNING first_run",
        )
        .bind(&self.first_run)
        .bind(self.newest)
        .fetch_one(&mut self.connection)
        .await?;
        self.first_run = Some(first_run);
        let mut migrations = self.load("known_migrations").await?;
        for (version, checksum) in migrations::known() {
            migrations
                .send(format!("{version}\t{checksum}\n").as_bytes())
                .await?;
        }
        migrations.finish().await
    }

    /// The first run that this look is at, by id; the empty text if it is at all of them.
    #[must_use]
    pub fn first_run(&self) -> &str {
        self.first_run.as_deref().unwrap_or_default()
    }

    /// Loads rows, as text of COPY, into one of the session's tables.
    ///
    /// # Errors
    /// As any statement.
    pub async fn load(&mut self, table: &str) -> Result<Load<'_>, StoreError> {
        let statement = format!("COPY pg_temp.{table} FROM STDIN");
        Ok(Load(self.connection.copy_in_raw(&statement).await?))
    }

    /// Every invariant, in order, with how much it looks at.
    ///
    /// # Errors
    /// As any statement; the engine's rows have to be loaded.
    pub async fn invariants(&mut self) -> Result<Vec<Invariant>, StoreError> {
        let mut invariants = Vec::with_capacity(INVARIANTS.len());
        for (name, query) in INVARIANTS.into_iter().zip(QUERIES) {
            let (sentence, units, count) = header(query);
            let looked_at = sqlx::query_scalar(AssertSqlSafe(count))
                .fetch_one(&mut self.connection)
                .await?;
            invariants.push(Invariant {
                name,
                sentence,
                looked_at,
                units,
                query,
            });
        }
        Ok(invariants)
    }

    /// Hands over what offends against an invariant, row by row.
    ///
    /// # Errors
    /// As any statement; the engine's rows have to be loaded.
    pub async fn offenders(
        &mut self,
        invariant: &Invariant,
        mut each: impl FnMut(Offender),
    ) -> Result<(), StoreError> {
        let query = invariant.query.trim_end().trim_end_matches(';');
        let statement = format!(
            "SELECT subject, finding, allowed FROM (\n{query}\n) AS offenders ORDER BY subject"
        );
        let mut rows =
            sqlx::query_as::<_, (String, String, Option<PgInterval>)>(AssertSqlSafe(statement))
                .fetch(&mut self.connection);
        while let Some((subject, finding, allowed)) = rows.try_next().await? {
            let allowed = allowed.and_then(|allowed| u64::try_from(allowed.microseconds).ok());
            each(Offender {
                subject,
                finding,
                allowed: allowed.map(Duration::from_micros),
            });
        }
        drop(rows);
        if invariant.name == HASHES {
            self.wrong_hashes(each).await?;
        }
        Ok(())
    }

    /// Rows that do not keep the text that was hashed: from before there was a column for it.
    async fn wrong_hashes(&mut self, mut each: impl FnMut(Offender)) -> Result<(), StoreError> {
        let mut rows = sqlx::query_as::<_, (String, String, String, String)>(
            "SELECT format('%s/%s/%s', run_id, step_id, idx), kind, sha256, inline::text FROM pg_temp.artifacts
             WHERE canonical IS NULL AND stored_bytes IS NULL AND inline IS NOT NULL
             ORDER BY run_id, step_id, idx",
        )
        .fetch(&mut self.connection);
        while let Some((subject, kind, sha256, inline)) = rows.try_next().await? {
            let found = content_hash(&stored_json(&inline)?);
            if found != sha256 {
                let finding = format!(
                    "kind {kind}, sha256 {:.12}… is not that of its content, {found:.12}…",
                    sha256
                );
                each(Offender {
                    subject,
                    finding,
                    allowed: None,
                });
            }
        }
        Ok(())
    }

    /// How many of the runs that are looked at there are in each status that some run has.
    ///
    /// # Errors
    /// As any statement.
    pub async fn runs_by_status(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT status, count(*) FROM pg_temp.runs GROUP BY status ORDER BY status",
        )
        .fetch_all(&mut self.connection)
        .await?)
    }

    /// Ends a look.
    ///
    /// # Errors
    /// As any statement.
    pub async fn end(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Closes the session.
    ///
    /// # Errors
    /// As any statement.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

/// Rows on their way into a table of the session.
pub struct Load<'a>(PgCopyIn<&'a mut PgConnection>);

impl Load<'_> {
    /// Sends some.
    ///
    /// # Errors
    /// As any statement.
    pub async fn send(&mut self, rows: &[u8]) -> Result<(), StoreError> {
        self.0.send(rows).await?;
        Ok(())
    }

    /// Says that these were all.
    ///
    /// # Errors
    /// As any statement, also where a row was not understood.
    pub async fn finish(self) -> Result<(), StoreError> {
        self.0.finish().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_begins_with_its_sentence_and_with_what_it_looks_at() {
        for (name, query) in INVARIANTS.into_iter().zip(QUERIES) {
            let (sentence, units, count) = header(query);
            assert!(
                sentence.ends_with(['.', ')']) && sentence.contains(' '),
                "{name}: {sentence}"
            );
            assert!(!units.is_empty(), "{name}");
            assert!(
                count.starts_with("SELECT ") && !count.ends_with(';'),
                "{name}: {count}"
            );
            assert!(query.trim_end().ends_with(';'), "{name}: psql wants an end");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_one_of_the_invariants() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../db/invariants");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut expected = INVARIANTS.map(|name| format!("{name}.sql")).to_vec();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
