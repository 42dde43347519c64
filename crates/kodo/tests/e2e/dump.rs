//! A database as text: every schema, table, view, column and row that is in it, whoever made them.

use std::collections::BTreeSet;

use kodo_store::DatabaseConfig;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::normalise::{Normaliser, without_numbers};

/// Settings of the session that reads, so that nobody else's decide how a value looks.
const SESSION: [(&str, &str); 6] = [
    ("timezone", "UTC"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "iso_8601"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
];

/// How a column shows whose values differ between any two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volatile {
    /// A time in milliseconds since 1970, of the test's own time.
    EpochMs,
    /// The numbers in it differ.
    Numbers,
}

/// Volatile columns, each as `schema.table.column`. Times, ids and UUIDs need no rule: their type or shape tells.
pub type Rules<'a> = [(&'a str, Volatile)];

/// A dump, and which rules it had a use for.
#[derive(Debug)]
pub struct Dump {
    /// A line each table or view, each column, each value of each row of a table.
    pub text: String,
    /// The columns that a rule was for.
    pub ruled: BTreeSet<String>,
}

struct Column {
    name: String,
    data_type: String,
    nullable: bool,
    default: Option<String>,
}

/// Everything in a database but the catalogs of Postgres. Rows come by their primary key, texts in byte order. Without
/// a normaliser each value is as it is.
///
/// # Errors
/// If the server does not answer.
pub async fn dump(
    database: &DatabaseConfig,
    rules: &Rules<'_>,
    mut normaliser: Option<&mut Normaliser>,
) -> anyhow::Result<Dump> {
    let options = database.connect_options("kodo-harness").options(SESSION);
    let mut connection = kodo_store::connect(options).await?;
    let mut dump = Dump {
        text: String::new(),
        ruled: BTreeSet::new(),
    };
    for (schema, table, kind) in tables(&mut connection).await? {
        let columns = columns(&mut connection, &schema, &table).await?;
        let name = format!("{schema}.{table}");
        dump.text.push_str(&format!("{name}: {kind}\n"));
        for column in &columns {
            let null = if column.nullable { "" } else { " not null" };
            let default = column
                .default
                .as_deref()
                .map(|default| format!(" default {default}"));
            dump.text.push_str(&format!(
                "{name}.{}: {}{null}{}\n",
                column.name,
                column.data_type,
                default.unwrap_or_default()
            ));
        }
        // A view has no rows of its own, and may refuse to be read without what it needs.
        if kind == "view" {
            dump.text.push('\n');
            continue;
        }
        let rows = rows(&mut connection, &schema, &table, &columns).await?;
        for (number, row) in rows.iter().enumerate() {
            for (index, column) in columns.iter().enumerate() {
                let path = format!("{name}.{}", column.name);
                let rule = rules.iter().find(|(ruled, _)| *ruled == path);
                if rule.is_some() {
                    dump.ruled.insert(path);
                }
                let value: Option<String> = row.try_get(index)?;
                let rule = rule.map(|(_, volatile)| *volatile);
                let value = value.map(|value| {
                    on_one_line(&match &mut normaliser {
                        Some(normaliser) => shown(&value, column, rule, normaliser),
                        None => value,
                    })
                });
                dump.text.push_str(&format!(
                    "{name}[{}].{} = {}\n",
                    number + 1,
                    column.name,
                    value.as_deref().unwrap_or("null")
                ));
            }
        }
        dump.text
            .push_str(&format!("{name}: {} rows\n\n", rows.len()));
    }
    connection.close().await?;
    Ok(dump)
}

/// Schema, name and kind of every table and view, those of extensions included.
async fn tables(connection: &mut PgConnection) -> anyhow::Result<Vec<(String, String, String)>> {
    Ok(sqlx::query_as(
        r#"SELECT table_schema::text, table_name::text, lower(table_type::text)
           FROM information_schema.tables
           WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
             AND NOT starts_with(table_schema, 'pg_temp')
           ORDER BY table_schema COLLATE "C", table_name COLLATE "C""#,
    )
    .fetch_all(connection)
    .await?)
}

async fn columns(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
) -> anyhow::Result<Vec<Column>> {
    let columns = sqlx::query_as(
        "SELECT column_name::text, data_type::text, is_nullable = 'YES', column_default::text
         FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = $2
         ORDER BY ordinal_position",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(connection)
    .await?;
    let column = |(name, data_type, nullable, default)| Column {
        name,
        data_type,
        nullable,
        default,
    };
    Ok(columns.into_iter().map(column).collect())
}

/// Every row, its values as text.
async fn rows(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
    columns: &[Column],
) -> anyhow::Result<Vec<PgRow>> {
    let key: Vec<String> = sqlx::query_scalar(
        "SELECT a.attname::text
         FROM pg_index i
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
         WHERE i.indisprimary AND i.indrelid = format('%I.%I', $1::text, $2::text)::regclass
         ORDER BY array_position(i.indkey, a.attnum)",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    let values: Vec<String> = columns
        .iter()
        .map(|column| format!("{}::text", quoted(&column.name)))
        .collect();
    // By the key, as what it is; what has none by all of its columns as text.
    let order: Vec<String> = columns
        .iter()
        .filter(|column| key.is_empty() || key.contains(&column.name))
        .map(|column| {
            let name = quoted(&column.name);
            if key.is_empty() || column.data_type == "text" {
                format!("{name}::text COLLATE \"C\"")
            } else {
                name
            }
        })
        .collect();
    let order = if order.is_empty() {
        String::new()
    } else {
        format!(" ORDER BY {}", order.join(", "))
    };
    let query = format!(
        "SELECT {} FROM {}.{}{order}",
        values.join(", "),
        quoted(schema),
        quoted(table)
    );
    Ok(sqlx::query(AssertSqlSafe(query))
        .fetch_all(connection)
        .await?)
}

/// A value with its placeholders.
fn shown(
    value: &str,
    column: &Column,
    rule: Option<Volatile>,
    normaliser: &mut Normaliser,
) -> String {
    match rule {
        Some(Volatile::EpochMs) => normaliser.epoch_ms(value),
        // UUIDs first: they have numbers in them.
        Some(Volatile::Numbers) => without_numbers_outside_placeholders(&normaliser.text(value)),
        None if column.data_type.starts_with("timestamp") => normaliser.time_of_postgres(value),
        None => normaliser.text(value),
    }
}

fn on_one_line(value: &str) -> String {
    let escaped = value.chars().map(|c| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    });
    escaped.collect()
}

fn without_numbers_outside_placeholders(text: &str) -> String {
    let parts = text
        .split_inclusive('>')
        .map(|part| match part.split_once('<') {
            Some((before, placeholder)) => format!("{}<{placeholder}", without_numbers(before)),
            None => without_numbers(part),
        });
    parts.collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_placeholders_stay() {
        assert_eq!(
            without_numbers_outside_placeholders("<uuid-1>/pid:[40]/12"),
            "<uuid-1>/pid:[<n>]/<n>"
        );
    }

    #[test]
    fn a_name_may_have_quotes() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
