//! Intents: what somebody wants, immutable once stored.

use kodo_contract::{Intent, IntentId};
use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::group::{Answer, Entry, another_answer, column};
use super::idempotency::KeyRow;
use crate::{Idempotency, Store, StoreError, Write};

/// The `payload` column: everything of an intent that has no column of its own.
fn payload(intent: &Intent) -> Value {
    let mut payload = Map::new();
    payload.insert("inputs".into(), Value::Object(intent.inputs.clone()));
    payload.insert(
        "constraints".into(),
        Value::Object(intent.constraints.clone()),
    );
    if let Some(connectors) = &intent.connectors {
        payload.insert("connectors".into(), connectors.clone().into());
    }
    Value::Object(payload)
}

/// An intent as it is sent.
#[derive(Debug)]
pub(crate) struct IntentRow {
    id: String,
    goal: String,
    payload: String,
    key: Option<KeyRow>,
}

impl IntentRow {
    pub(crate) fn size(&self) -> usize {
        self.goal.len() + self.payload.len() + 512
    }
}

/// The one statement that stores intents. Returns which of them are stored; the others' keys were taken.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    intents: &[&IntentRow],
) -> Result<Vec<bool>, StoreError> {
    // The insert of a key waits for a concurrent request with the same key to commit or roll back, so exactly one of them
    // sees its key inserted. Of two in one statement the second one's is ignored: its answer is another one.
    let keys: Vec<Option<&KeyRow>> = column(intents, |it| it.key.as_ref());
    Ok(sqlx::query_scalar(
        "WITH asked AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[],
                                  $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[]) WITH ORDINALITY
                 AS a (id, goal, payload, scope, key, fingerprint, status, body, n)
         ), first AS (
             INSERT INTO app.idempotency_keys (scope, key, fingerprint, status, body)
             SELECT scope, key, fingerprint, status, body FROM asked WHERE key IS NOT NULL
             ON CONFLICT DO NOTHING
             RETURNING body
         ), stored AS (
             INSERT INTO app.intents (id, goal, payload)
             SELECT a.id, a.goal, a.payload::jsonb FROM asked a
             WHERE a.key IS NULL OR EXISTS (SELECT FROM first f WHERE f.body = a.body)
             ON CONFLICT (id) DO NOTHING
             RETURNING id
         )
         -- Written again, it is there already.
         SELECT EXISTS (SELECT FROM stored s WHERE s.id = a.id) OR EXISTS (SELECT FROM app.intents i WHERE i.id = a.id)
         FROM asked a ORDER BY a.n",
    )
    .bind(column(intents, |it| it.id.as_str()))
    .bind(column(intents, |it| it.goal.as_str()))
    .bind(column(intents, |it| it.payload.as_str()))
    .bind(KeyRow::scopes(&keys))
    .bind(KeyRow::keys(&keys))
    .bind(KeyRow::fingerprints(&keys))
    .bind(KeyRow::statuses(&keys))
    .bind(KeyRow::bodies(&keys))
    .fetch_all(connection)
    .await?)
}

impl Store {
    /// Stores an intent, with its idempotency key if it has one: one statement, one commit.
    ///
    /// # Errors
    /// As any statement.
    pub async fn insert_intent(
        &self,
        id: &IntentId,
        intent: &Intent,
        idempotency: Option<&Idempotency<'_>>,
    ) -> Result<Write, StoreError> {
        let row = IntentRow {
            id: id.as_str().to_owned(),
            goal: intent.goal.clone(),
            payload: payload(intent).to_string(),
            key: idempotency.map(KeyRow::of),
        };
        match self.journal.write(Entry::Intent(row)).await? {
            Answer::Intent(true) => Ok(Write::Created),
            Answer::Intent(false) => self.replay(idempotency).await,
            _ => Err(another_answer()),
        }
    }

    /// Whether an intent is stored.
    ///
    /// # Errors
    /// As any statement.
    pub async fn intent_exists(&self, id: &IntentId) -> Result<bool, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM app.intents WHERE id = $1)")
                .bind(id.as_str())
                .fetch_one(&self.pool)
                .await?,
        )
    }
}
