//! Marks of the crash demo: one row an effect, so that counting rows counts effects.

use serde::Serialize;

use crate::{Store, StoreError};

/// One of the two effects of the crash demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Before the durable sleep.
    S1,
    /// After it.
    S2,
}

impl Mark {
    /// As column `step` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S1 => "s1",
            Self::S2 => "s2",
        }
    }
}

/// How often each effect of one crash demo is recorded: `{"s1":n,"s2":n}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Marks {
    /// Rows of the effect before the sleep.
    pub s1: i64,
    /// Rows of the effect after it.
    pub s2: i64,
}

impl Store {
    /// Records an effect, once: again with the same key it changes nothing.
    ///
    /// # Errors
    /// As any statement.
    pub async fn mark(&self, workflow_id: &str, mark: Mark) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO app.marks (run_id, step) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(workflow_id)
            .bind(mark.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Counts the effects of one crash demo.
    ///
    /// # Errors
    /// As any statement.
    pub async fn marks(&self, workflow_id: &str) -> Result<Marks, StoreError> {
        let (s1, s2) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE step = 's1'), count(*) FILTER (WHERE step = 's2')
             FROM app.marks WHERE run_id = $1",
        )
        .bind(workflow_id)
        .fetch_one(&self.pool)
        .await?;
        Ok(Marks { s1, s2 })
    }
}
