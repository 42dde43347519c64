//! The lock that keeps content in the artifact store while a row that names it is on its way.
//!
//! A step stores its content first and names it in a row afterwards; in between, no row shows that the content is needed.
//! Garbage collection takes an exclusive advisory lock before it looks for rows, holds it until the content is deleted, and
//! counts each time that it was granted one. A step reads that count under the shared lock before it stores its content, and
//! takes the shared lock again, for as long as its row takes to be committed. If the count is the same, nothing was deleted
//! meanwhile; otherwise it looks whether its content is still there. The age of content plays no part in this.
//!
//! Locks are on [`LOCKS`] parts of all content and not on each hash: the lock table of Postgres has some 6,400 places by
//! default, for all sessions together, and one step can have more content than that.

use std::collections::BTreeSet;
use std::sync::Arc;

use kodo_contract::ContentHash;
use sqlx::{Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use crate::rows::steps::{StepRow, record};
use crate::{NewStep, Recorded, Store, StoreError};

/// The first key of all content locks, which have two: no other lock of ours has two.
const SPACE: i32 = 0x6b6f_646f;

/// How many parts content has for its locks. Two hashes of one part only wait for each other.
const LOCKS: i32 = 256;

/// Takes the shared locks, and returns how often garbage collection has been granted an exclusive one. The second is read
/// after the first was granted: the projection of a row comes after the row. A sequence has no snapshot.
const SHARED: &str = "WITH locked AS MATERIALIZED (
         SELECT count(pg_advisory_xact_lock_shared($1, part)) FROM unnest($2::int[]) AS p (part)
     )
     SELECT coalesce(pg_sequence_last_value('app.content_claims'), 0) FROM locked";

/// Content that is not deleted while this is held.
#[derive(Debug)]
pub struct HeldContent {
    transaction: Transaction<'static, Postgres>,
    claims: i64,
    /// Declared last, so that it is released after the connection.
    _holder: OwnedSemaphorePermit,
}

/// Content that no row names, and that no row will name while this is held.
#[derive(Debug)]
pub struct UnnamedContent(Transaction<'static, Postgres>);

/// How often garbage collection had taken content when this was read, see [`Store::watch_content`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentClaims(i64);

/// The part of a hash.
fn part(hash: &ContentHash) -> i32 {
    let digits = hash.as_str().as_bytes().iter().take(7);
    let number = digits.fold(0, |number, digit| {
        let value = char::from(*digit).to_digit(16).unwrap_or_default();
        (number << 4) | value.cast_signed()
    });
    number % LOCKS
}

/// The parts of these hashes, in the order in which everybody locks them.
fn parts(hashes: &[ContentHash]) -> Vec<i32> {
    let parts: BTreeSet<i32> = hashes.iter().map(part).collect();
    parts.into_iter().collect()
}

impl Store {
    /// Reads how often garbage collection has taken content, once it has ended with what it takes of this content right now.
    /// To be asked before the content is stored, or found to be stored: see [`HeldContent::is_untouched_since`]. Waits while
    /// the content is being deleted, and while half of the pool's connections hold content or wait for that.
    ///
    /// # Errors
    /// As any statement.
    pub async fn watch_content(&self, hashes: &[ContentHash]) -> Result<ContentClaims, StoreError> {
        let _holder = self.holders.acquire().await;
        let claims = sqlx::query_scalar(SHARED)
            .bind(SPACE)
            .bind(parts(hashes))
            .fetch_one(&self.pool);
        Ok(ContentClaims(claims.await?))
    }

    /// Takes the shared lock on content, whether it is stored yet or not. Waits while the content is being deleted, and
    /// while half of the pool's connections hold content.
    ///
    /// # Errors
    /// As any statement.
    pub async fn hold_content(&self, hashes: &[ContentHash]) -> Result<HeldContent, StoreError> {
        let holder = Arc::clone(&self.holders).acquire_owned().await;
        // Nobody closes the semaphore.
        let holder = holder.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut transaction = self.pool.begin().await?;
        let claims = sqlx::query_scalar(SHARED)
            .bind(SPACE)
            .bind(parts(hashes))
            .fetch_one(&mut *transaction)
            .await?;
        Ok(HeldContent {
            transaction,
            claims,
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
        let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
            .bind(SPACE)
            .bind(part(hash))
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
        if named {
            return Ok(None);
        }
        // Counted before anything is deleted, and whatever becomes of the transaction.
        sqlx::query("SELECT nextval('app.content_claims')")
            .execute(&mut *transaction)
            .await?;
        Ok(Some(UnnamedContent(transaction)))
    }
}

impl HeldContent {
    /// Whether garbage collection has taken no content since this was read. Then what was stored, or found to be stored,
    /// after that is there; otherwise it has to be looked for, which holds the lock and a connection.
    #[must_use]
    pub fn is_untouched_since(&self, watched: ContentClaims) -> bool {
        self.claims == watched.0
    }
}

impl HeldContent {
    /// Records the step that names the content, as [`Store::record_step`] does, and releases the lock.
    ///
    /// # Errors
    /// As any statement; then nothing is recorded.
    pub async fn record_step(mut self, step: &NewStep<'_>) -> Result<Recorded, StoreError> {
        let recorded = record(&mut self.transaction, &[&StepRow::of(step)]).await?;
        self.transaction.commit().await?;
        // One for each step, of which there is one.
        Ok(recorded.first().copied().unwrap_or(Recorded::Fenced))
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
    fn however_much_content_there_is_its_locks_are_few_and_in_one_order() {
        let hashes: Vec<ContentHash> = (0..20_000_u32)
            .map(|it| ContentHash::of(&it.to_le_bytes()))
            .collect();
        let all = parts(&hashes);
        assert_eq!(all, (0..LOCKS).collect::<Vec<_>>());
        let hash = |first: &str| ContentHash::parse(&format!("{first:0<64}")).unwrap();
        assert_eq!(parts(&[hash("0000001"), hash("0000101")]), [1]);
    }
}
