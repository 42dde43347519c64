//! Intents: what somebody wants, immutable once stored.

use kodo_contract::{Intent, IntentId};
use serde_json::{Map, Value};
use sqlx::types::Json;

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
        let Some(request) = idempotency else {
            sqlx::query("INSERT INTO app.intents (id, goal, payload) VALUES ($1, $2, $3)")
                .bind(id.as_str())
                .bind(&intent.goal)
                .bind(Json(payload(intent)))
                .execute(&self.pool)
                .await?;
            return Ok(Write::Created);
        };
        // The insert of the key waits for a concurrent request with the same key to commit or roll back, so
        // exactly one of them sees its key inserted and inserts the intent.
        let inserted = sqlx::query(
            "WITH first AS (
                 INSERT INTO app.idempotency_keys (scope, key, fingerprint, status, body)
                 VALUES ($4, $5, $6, $7, $8)
                 ON CONFLICT DO NOTHING
                 RETURNING 1
             )
             INSERT INTO app.intents (id, goal, payload)
             SELECT $1, $2, $3 FROM first",
        )
        .bind(id.as_str())
        .bind(&intent.goal)
        .bind(Json(payload(intent)))
        .bind(request.scope)
        .bind(request.key)
        .bind(request.fingerprint)
        .bind(request.status as i16)
        .bind(request.body)
        .execute(&self.pool)
        .await?
        .rows_affected();
        if inserted == 1 {
            return Ok(Write::Created);
        }
        self.replay(request).await
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
