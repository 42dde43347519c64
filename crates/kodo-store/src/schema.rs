//! Schema `app` as it is, compared with what its migrations make: what is recorded as applied, and what is there.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::migrations::{MIGRATIONS, known_checksum};
use crate::{DatabaseConfig, SchemaError, StoreError};

/// What the record of migrations says of one: whether it came to its end, and its checksum.
type Record = BTreeMap<i64, (bool, Vec<u8>)>;

impl DatabaseConfig {
    /// Compares schema `app` with this version.
    ///
    /// # Errors
    /// [`StoreError::Schema`] with the first difference, or as any statement.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        match self.schema_errors().await?.into_iter().next() {
            Some(error) => Err(StoreError::Schema(error)),
            None => Ok(()),
        }
    }

    /// Every difference between schema `app` and this version, those first that are the cause of others.
    ///
    /// # Errors
    /// As any statement.
    pub async fn schema_errors(&self) -> Result<Vec<SchemaError>, StoreError> {
        let mut connection = self.connect("kodo-check").await?;
        // One moment: another process may be migrating.
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut connection)
            .await?;
        let there: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'app')")
                .persistent(false)
                .fetch_one(&mut connection)
                .await?;
        if !there {
            let database = self.database.clone();
            return Ok(vec![SchemaError::Never { database }]);
        }
        let record = record(&mut connection).await?;
        let present = present(&mut connection).await?;
        Ok(differences(&self.database, &record, &present))
    }
}

fn differences(database: &str, record: &Record, present: &[String]) -> Vec<SchemaError> {
    let mut found = Vec::new();
    let name = || database.to_owned();
    for (&version, (success, checksum)) in record {
        match known_checksum(version) {
            None => found.push(SchemaError::Newer {
                database: name(),
                version,
            }),
            Some(_) if !success => found.push(SchemaError::Unfinished {
                database: name(),
                version,
            }),
            Some(known) if known != *checksum => found.push(SchemaError::Changed {
                database: name(),
                version,
            }),
            Some(_) => {}
        }
    }
    let mut pending = 0;
    let (mut lacks, mut unrecorded) = (None, None);
    for (version, things) in made() {
        let recorded = record.contains_key(&version);
        pending += usize::from(!recorded);
        let odd = |thing: &&String| present.contains(thing) != recorded;
        let Some(thing) = things.iter().find(odd).map(|thing| described(thing)) else {
            continue;
        };
        // Of each, the one that comes first: the later ones follow from it.
        match recorded {
            true => lacks.get_or_insert(SchemaError::Lacks {
                database: name(),
                version,
                thing,
            }),
            false => unrecorded.get_or_insert(SchemaError::Unrecorded {
                database: name(),
                version,
                thing,
            }),
        };
    }
    let unrecorded_is_some = unrecorded.is_some();
    found.extend(lacks.into_iter().chain(unrecorded));
    if pending > 0 && !unrecorded_is_some {
        found.push(SchemaError::Pending {
            database: name(),
            pending,
            known: MIGRATIONS.len(),
        });
    }
    found
}

async fn record(connection: &mut PgConnection) -> Result<Record, StoreError> {
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = 'app' AND c.relname = 'schema_migrations')",
    )
    .persistent(false)
    .fetch_one(&mut *connection)
    .await?;
    if !there {
        return Ok(Record::new());
    }
    let rows: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as("SELECT version, success, checksum FROM app.schema_migrations")
            .persistent(false)
            .fetch_all(connection)
            .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(version, success, checksum)| (version, (success, checksum)))
        .collect())
}

/// Of what the migrations make, what is there. Reads the catalogue's rows: `to_regclass` does not see them as of the
/// transaction's moment.
async fn present(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let things: Vec<String> = made().into_iter().flat_map(|(_, things)| things).collect();
    Ok(sqlx::query_scalar(
        "SELECT thing FROM unnest($1::text[]) AS t (thing)
         JOIN pg_class c ON c.relname = split_part(thing, '.', 2)
         JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = split_part(thing, '.', 1)
         WHERE split_part(thing, '.', 3) = '' OR EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = c.oid AND attname = split_part(thing, '.', 3) AND NOT attisdropped)",
    )
    .persistent(false)
    .bind(things)
    .fetch_all(connection)
    .await?)
}

/// `table app.x`, `column app.x.y`.
fn described(thing: &str) -> String {
    match thing.matches('.').count() {
        1 => format!("table {thing}"),
        _ => format!("column {thing}"),
    }
}

/// By migration, the tables that it creates (`app.x`) and the columns that it adds (`app.x.y`), without those that a later
/// one drops.
fn made() -> Vec<(i64, Vec<String>)> {
    let mut all: Vec<(i64, Vec<String>)> = Vec::new();
    for &(version, _, sql) in MIGRATIONS {
        let (mut made, mut dropped, mut table) = (Vec::new(), Vec::new(), String::new());
        let words = words(sql);
        for (at, word) in words.iter().enumerate() {
            let before = |back: usize| at.checked_sub(back).map_or("", |at| words[at].as_str());
            match (before(2), before(1)) {
                ("create", "table") => made.push(word.clone()),
                ("alter", "table") => table = word.clone(),
                ("drop", "table") => dropped.push(word.clone()),
                ("add", "column") => made.push(format!("{table}.{word}")),
                ("drop", "column") => dropped.push(format!("{table}.{word}")),
                _ => {}
            }
        }
        for (_, things) in &mut all {
            things.retain(|thing| !dropped.contains(thing));
        }
        all.push((version, made));
    }
    all
}

/// The words of statements in lower case, without comments and the words that change nothing of what is meant.
fn words(sql: &str) -> Vec<String> {
    let lines = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    lines
        .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')))
        .map(str::to_lowercase)
        .filter(|word| !matches!(word.as_str(), "" | "if" | "not" | "exists" | "only"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_migrations_make_is_read_from_their_text() {
        let made: BTreeMap<i64, Vec<String>> = made().into_iter().collect();
        assert_eq!(
            made[&1],
            [
                "app.instance",
                "app.intents",
                "app.runs",
                "app.run_steps",
                "app.artifacts",
                "app.marks",
                "app.idempotency_keys",
                "app.workers"
            ]
        );
        assert_eq!(made[&2], [""; 0]);
        assert_eq!(
            made[&3],
            ["app.artifacts.stored_bytes", "app.artifacts.media_type"]
        );
        assert_eq!(made[&7], ["app.run_claims", "app.run_steps.epoch"]);
        assert_eq!(made[&11], ["app.workspace_objects", "app.uploads"]);
    }

    fn whole() -> (Record, Vec<String>) {
        let record = MIGRATIONS.iter().map(|&(version, ..)| {
            let checksum = known_checksum(version).expect("a known migration");
            (version, (true, checksum))
        });
        let things = made().into_iter().flat_map(|(_, things)| things);
        (record.collect(), things.collect())
    }

    #[test]
    fn a_record_and_what_is_there_have_to_agree() {
        let (record, present) = whole();
        assert_eq!(differences("d", &record, &present), []);

        let mut older = record.clone();
        older.retain(|version, _| *version < 7);
        let then: Vec<String> = made()
            .into_iter()
            .filter(|(version, _)| *version < 7)
            .flat_map(|(_, things)| things)
            .collect();
        let found = differences("d", &older, &then);
        assert!(
            matches!(found.as_slice(), [SchemaError::Pending { .. }]),
            "{found:?}"
        );
        // By hand: the record alone is set back, or forward.
        let found = differences("d", &older, &present);
        assert!(
            matches!(found[0], SchemaError::Unrecorded { version: 7, .. }),
            "{found:?}"
        );
        let found = differences("d", &record, &then);
        assert_eq!(
            found[0].to_string(),
            "database \"d\" has no table app.run_claims, although migration 7, which makes it, is recorded as applied"
        );
        let mut newer = record.clone();
        newer.insert(999, (true, Vec::new()));
        let found = differences("d", &newer, &present);
        assert!(
            matches!(found.as_slice(), [SchemaError::Newer { version: 999, .. }]),
            "{found:?}"
        );
    }
}
