//! The lock that keeps content in the artifact store while a row that names it is on its way.
//!
//! A step stores its content first and names it in a row afterwards; in between, no row shows that the content is needed.
//! So a step takes a shared advisory lock on the hash before it checks that the content is stored, and holds it until the
//! row is committed. Garbage collection takes the lock exclusively before it looks for rows, and holds it until the content
//! is deleted. The age of content plays no part in this.

use std::sync::Arc;

use kodo_contract::ContentHash;
use sqlx::{Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use crate::rows::steps::record;
use crate::{NewStep, Recorded, Store, StoreError};

/// Content that is not deleted while this is held.
#[derive(Debug)]
pub struct HeldContent {
    transaction: Transaction<'static, Postgres>,
    /// Declared last, so that it is released after the connection.
    _holder: OwnedSemaphorePermit,
}

/// Content that no row names, and that no row will name while this is held.
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
    /// Takes the shared lock on content, whether it is stored yet or not. Waits while the content is being deleted, and
    /// while half of the pool's connections hold content.
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

    /// Takes the exclusive lock on content that no row names; returns `None` if a row names it or a step holds it.
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
        // A statement of its own, so that its snapshot is taken after the lock was granted.
        let named: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM app.artifacts WHERE sha256 = $1 AND stored_bytes IS NOT NULL)
                 OR EXISTS (SELECT FROM app.workspace_objects WHERE sha256 = $1)
                 OR EXISTS (SELECT FROM app.uploads WHERE sha256 = $1)",
        )
        .bind(hash.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        Ok((!named).then_some(UnnamedContent(transaction)))
    }
}

impl HeldContent {
    /// Records the step that names the content, as [`Store::record_step`] does, and releases the lock.
    ///
    /// # Errors
    /// As any statement; then nothing is recorded.
    pub async fn record_step(mut self, step: &NewStep<'_>) -> Result<Recorded, StoreError> {
        let recorded = record(&mut *self.transaction, step).await?;
        self.transaction.commit().await?;
        Ok(recorded)
    }
}

impl HeldContent {
    /// Records that the content was uploaded, and releases the lock. Uploaded again, it counts as new for
    /// [`Store::forget_uploads`]. Returns whether it was not among the uploads before.
    ///
    /// # Errors
    /// As any statement; then nothing is recorded.
    pub async fn record_upload(
        mut self,
        hash: &ContentHash,
        size: u64,
    ) -> Result<bool, StoreError> {
        let is_new = sqlx::query_scalar(
            "INSERT INTO app.uploads (sha256, bytes) VALUES ($1, $2)
             ON CONFLICT (sha256) DO UPDATE SET created_at = now()
             RETURNING xmax = 0",
        )
        .bind(hash.as_str())
        .bind(i64::try_from(size).unwrap_or(i64::MAX))
        .fetch_one(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(is_new)
    }
}

impl UnnamedContent {
    /// Releases the lock.
    ///
    /// # Errors
    /// As any statement: the lock was lost with the connection, and a row may name the content by now.
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
