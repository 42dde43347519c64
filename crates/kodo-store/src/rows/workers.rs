//! Who holds, or last held, each worker slot. Written by the holder of the slot's lock only.

use crate::{Store, StoreError};

impl Store {
    /// Who last held a slot and did not give it back; `None` if it was given back or never held.
    ///
    /// # Errors
    /// As any statement.
    pub async fn slot_holder(&self, slot: i32) -> Result<Option<String>, StoreError> {
        let holder: Option<Option<String>> =
            sqlx::query_scalar("SELECT holder FROM app.workers WHERE slot = $1")
                .bind(slot)
                .fetch_optional(&self.pool)
                .await?;
        Ok(holder.flatten())
    }

    /// Writes down who holds a slot, or with `None` that its holder gave it back.
    ///
    /// # Errors
    /// As any statement.
    pub async fn set_slot_holder(&self, slot: i32, holder: Option<&str>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO app.workers (slot, holder) VALUES ($1, $2)
             ON CONFLICT (slot) DO UPDATE SET holder = excluded.holder, changed_at = now()",
        )
        .bind(slot)
        .bind(holder)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
