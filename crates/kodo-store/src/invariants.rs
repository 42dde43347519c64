//! The invariants: views `app.invariant_…`, each of which returns what offends against one sentence.
//!
//! What they say of the workflow engine they know from temporary tables of their session, since its rows may be in
//! another database (see db/migrations/0002_invariants.sql).

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgCopyIn;
use sqlx::postgres::types::PgInterval;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{DatabaseConfig, StoreError, migrations};

/// The invariants, in the order in which they are told. A database that lacks one proves nothing.
pub const INVARIANTS: [&str; 15] = [
    "no_run_stranded",
    "no_effect_twice",
    "statuses_agree",
    "succeeded_runs_complete",
    "failed_runs_say_why",
    "artifacts_complete",
    "artifact_hashes_fit",
    "ids_not_reused",
    "workflows_have_runs",
    "checkpoints_match_steps",
    "marks_match_workflows",
    "idempotency_keys_answer",
    "migrations_at_head",
    "schemas_apart",
    "one_system_database",
];

/// One invariant, and how much it was held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invariant {
    /// Its name; the view is `app.invariant_NAME`.
    pub name: String,
    /// What must hold: the comment on the view.
    pub sentence: String,
    /// How many rows it looks at. Nothing offends among none.
    pub looked_at: i64,
    /// What these rows are.
    pub units: String,
}

/// One row that offends against an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// What offends: an id, a table.
    pub subject: String,
    /// Why.
    pub finding: String,
    /// How long it may be so on a service that works, because a sweep is about to mend it. `None` where nothing is.
    pub allowed: Option<Duration>,
}

/// A session that looks at the invariants. It writes to temporary tables of its own and to nothing else.
pub struct Evidence(PgConnection);

impl Evidence {
    /// Connects.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the server does not answer in time or has no such database.
    pub async fn connect(app: &DatabaseConfig) -> Result<Self, StoreError> {
        Ok(Self(app.connect("kodo-prove").await?))
    }

    /// The first of the invariants that the database has no view for: it was not migrated to this version.
    ///
    /// # Errors
    /// As any statement.
    pub async fn lacks(&mut self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS expected (name, place)
             WHERE to_regclass('app.invariant_' || name) IS NULL OR to_regclass('app.invariant_scopes') IS NULL
             ORDER BY place LIMIT 1",
        )
        .bind(INVARIANTS.as_slice())
        .fetch_optional(&mut self.0)
        .await?)
    }

    /// Which product database this is, see [`Store::instance`](crate::Store::instance).
    ///
    /// # Errors
    /// As any statement.
    pub async fn instance(&mut self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM app.instance")
            .fetch_one(&mut self.0)
            .await?)
    }

    /// Begins a look: from here on every statement sees the rows of this moment. What was loaded is forgotten. The
    /// server itself refuses to write to a permanent table until [`Evidence::end`].
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql(include_str!("../sql/engine_rows.sql"))
            .execute(&mut self.0)
            .await?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut self.0)
            .await?;
        // The first statement after BEGIN is what fixes the moment.
        self.instance().await?;
        let mut migrations = self.load("known_migrations").await?;
        for (version, checksum) in migrations::known() {
            migrations
                .send(format!("{version}\t{checksum}\n").as_bytes())
                .await?;
        }
        migrations.finish().await
    }

    /// Loads rows, as text of COPY, into one of the session's tables.
    ///
    /// # Errors
    /// As any statement.
    pub async fn load(&mut self, table: &str) -> Result<Load<'_>, StoreError> {
        let statement = format!("COPY pg_temp.{table} FROM STDIN");
        Ok(Load(self.0.copy_in_raw(&statement).await?))
    }

    /// Every invariant, in order, with how much it looks at.
    ///
    /// # Errors
    /// As any statement; the engine's rows have to be loaded.
    pub async fn invariants(&mut self) -> Result<Vec<Invariant>, StoreError> {
        type Row = (String, Option<String>, Option<i64>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT expected.name, obj_description(to_regclass('app.invariant_' || expected.name), 'pg_class'),
                    s.looked_at, s.units
             FROM unnest($1::text[]) WITH ORDINALITY AS expected (name, place)
             LEFT JOIN app.invariant_scopes s ON s.invariant = expected.name
             ORDER BY place",
        )
        .bind(INVARIANTS.as_slice())
        .fetch_all(&mut self.0)
        .await?;
        rows.into_iter()
            .map(|(name, sentence, looked_at, units)| {
                let (Some(sentence), Some(looked_at), Some(units)) = (sentence, looked_at, units)
                else {
                    let lost = format!("view app.invariant_{name} has lost its comment or scope");
                    return Err(StoreError::Corrupt(lost));
                };
                Ok(Invariant {
                    name,
                    sentence,
                    looked_at,
                    units,
                })
            })
            .collect()
    }

    /// Hands over what offends against an invariant, row by row; `name` is one of [`INVARIANTS`].
    ///
    /// # Errors
    /// As any statement; the engine's rows have to be loaded.
    pub async fn offenders(
        &mut self,
        name: &str,
        mut each: impl FnMut(Offender),
    ) -> Result<(), StoreError> {
        let statement =
            format!("SELECT subject, finding, allowed FROM app.invariant_{name} ORDER BY subject");
        let mut rows =
            sqlx::query_as::<_, (String, String, Option<PgInterval>)>(AssertSqlSafe(statement))
                .fetch(&mut self.0);
        while let Some((subject, finding, allowed)) = rows.try_next().await? {
            let allowed = allowed.and_then(|allowed| u64::try_from(allowed.microseconds).ok());
            each(Offender {
                subject,
                finding,
                allowed: allowed.map(Duration::from_micros),
            });
        }
        Ok(())
    }

    /// How many runs there are in each status that some run has.
    ///
    /// # Errors
    /// As any statement.
    pub async fn runs_by_status(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(
            sqlx::query_as("SELECT status, count(*) FROM app.runs GROUP BY status ORDER BY status")
                .fetch_all(&mut self.0)
                .await?,
        )
    }

    /// Ends a look.
    ///
    /// # Errors
    /// As any statement.
    pub async fn end(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.0).await?;
        Ok(())
    }

    /// Closes the session.
    ///
    /// # Errors
    /// As any statement.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.0.close().await?)
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
