//! Who may name content of the artifact store, and who may delete it: never both at the same time.
//!
//! A step stores its content first and names it in a row afterwards; in between, nobody can see that it is wanted. So
//! whoever names content holds a shared advisory lock on its hash from before he looks whether it is there until his row
//! is committed, and whoever deletes content holds the lock alone, from before he looks for rows until it is gone. No
//! clock has a part in that.

use std::sync::Arc;

use kodo_contract::ContentHash;
use sqlx::{Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use crate::rows::steps::record;
use crate::{NewStep, Recorded, Store, StoreError};

/// Content that nobody deletes while this is held.
#[derive(Debug)]
pub struct HeldContent {
    transaction: Transaction<'static, Postgres>,
    /// Given back after the connection.
    _holder: OwnedSemaphorePermit,
}

/// Content that no row names, and that none will while this is held.
#[derive(Debug)]
pub struct UnnamedContent(Transaction<'static, Postgres>);

/// The key of a hash's lock. Two hashes that share one only wait for each other.
fn key(hash: &ContentHash) -> i64 {
    let digits = hash.as_str().as_bytes().iter().take(16);
    digits.fold(0, |key, digit| {
        let value = char::from(*digit).to_digit(16).unwrap_or_default();
        (key << 4) | i64::from(value)
    })
}

impl Store {
    /// Holds content, whether it is there yet or not. Waits for whoever is deleting it, and where half of the
    /// connections are held this way.
    ///
    /// # Errors
    /// As any statement.
    pub async fn hold_content(&self, hashes: &[ContentHash]) -> Result<HeldContent, StoreError> {
        let mut keys: Vec<i64> = hashes.iter().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        let holder = Arc::clone(&self.holders).acquire_owned().await;
        // Nobody closes the semaphore.
        let holder = holder.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "SELECT pg_advisory_xact_lock_shared(key) FROM unnest($1::bigint[]) AS k (key)",
        )
        .bind(keys)
        .execute(&mut *transaction)
        .await?;
        Ok(HeldContent {
            transaction,
            _holder: holder,
        })
    }

    /// Claims content that no row names; `None` where one does, or where somebody is about to.
    ///
    /// # Errors
    /// As any statement.
    pub async fn claim_unnamed(
        &self,
        hash: &ContentHash,
    ) -> Result<Option<UnnamedContent>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
            .bind(key(hash))
            .fetch_one(&mut *transaction)
            .await?;
        if !alone {
            return Ok(None);
        }
        // A statement of its own: it sees what was committed up to the moment when the lock was there.
        let named: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM app.artifacts WHERE sha256 = $1 AND stored_bytes IS NOT NULL)",
        )
        .bind(hash.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        Ok((!named).then_some(UnnamedContent(transaction)))
    }
}

impl HeldContent {
    /// Records the step that names the content, as [`Store::record_step`] does, and lets go of it.
    ///
    /// # Errors
    /// As any statement; then nothing is recorded.
    pub async fn record_step(mut self, step: &NewStep<'_>) -> Result<Recorded, StoreError> {
        let recorded = record(&mut *self.transaction, step).await?;
        self.transaction.commit().await?;
        Ok(recorded)
    }
}

impl UnnamedContent {
    /// Lets go of it.
    ///
    /// # Errors
    /// As any statement: somebody else may have named it, since the lock went with the connection.
    pub async fn release(self) -> Result<(), StoreError> {
        Ok(self.0.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_on_the_beginning_of_the_hash() {
        let hash = |first: &str| ContentHash::parse(&format!("{first:0<64}")).unwrap();
        assert_eq!(key(&hash("0000000000000001")), 1);
        assert_eq!(key(&hash("ffffffffffffffff")), -1);
        assert_eq!(key(&hash("8")), i64::MIN);
    }
}
