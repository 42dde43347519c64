//! Binds a product database to its artifact store: a mark in the store, and the same one in the database.

use kodo_contract::request_id;
use sqlx::Connection;

use crate::content::{ArtifactError, ArtifactStore as _, ObjectArtifacts};
use crate::{Store, StoreError};

/// Why a store is not, or not certainly, the one that the rows name content in.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The product database does not answer, or refuses.
    #[error(transparent)]
    Rows(#[from] StoreError),
    /// The artifact store does not answer, or refuses.
    #[error(transparent)]
    Content(#[from] ArtifactError),
    /// It is another one.
    #[error(
        "the artifact store {place} is not the one that this product database's runs keep their content in, which has the \
         mark {bound} (this one has {found}): set ARTIFACT_STORE to that one, the same for every worker, a bucket or a \
         folder that all of them share; if that store is lost, or its content was moved here without its mark, make this \
         one its successor by `kodo artifacts adopt`"
    )]
    Other {
        /// This store.
        place: String,
        /// The mark in the database.
        bound: String,
        /// The mark of this store, or `none`.
        found: String,
    },
}

impl MarkError {
    /// Whether the same call can succeed later although nobody changes anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Rows(error) => error.is_transient(),
            Self::Content(error) => error.is_transient(),
            Self::Other { .. } => false,
        }
    }
}

impl Store {
    /// The mark of the artifact store that the product database is bound to.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn artifact_mark(&self) -> Result<Option<String>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT artifact_store FROM app.instance")
                .fetch_one(&self.pool)
                .await?,
        )
    }

    /// Checks that the store is the one that this product database is bound to, and binds it to this one if it is bound to
    /// none. Reads from the store in any case, so that one that cannot be used is noticed.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn bind_artifacts(&self, artifacts: &ObjectArtifacts) -> Result<(), MarkError> {
        if self.artifact_mark().await?.is_none() {
            self.write_mark(artifacts, false).await?;
        }
        self.check_artifacts(artifacts).await
    }

    /// Checks that the store is the one that this product database is bound to, if it is bound to one. Writes nothing.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn check_artifacts(&self, artifacts: &ObjectArtifacts) -> Result<(), MarkError> {
        let bound = self.artifact_mark().await?;
        let found = artifacts.mark().await?;
        match bound {
            Some(bound) if found.as_ref() != Some(&bound) => Err(MarkError::Other {
                place: artifacts.place(),
                bound,
                found: found.unwrap_or_else(|| "none".to_owned()),
            }),
            _ => Ok(()),
        }
    }

    /// Binds the product database to this store, whatever it is bound to.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn adopt_artifacts(&self, artifacts: &ObjectArtifacts) -> Result<(), MarkError> {
        self.write_mark(artifacts, true).await.map(drop)
    }

    /// Writes the store's mark into the database, unless another one is there or `over` it; makes the mark if the store
    /// has none. Returns what is in the database then.
    ///
    /// Under the lock of the row, and the database last: of two services that start at once only one makes a mark, and one
    /// that dies in between leaves a mark that the next one takes.
    async fn write_mark(
        &self,
        artifacts: &ObjectArtifacts,
        over: bool,
    ) -> Result<String, MarkError> {
        let mut connection = self.alone().await?;
        let mut turn = connection.begin().await.map_err(StoreError::from)?;
        let bound: Option<String> =
            sqlx::query_scalar("SELECT artifact_store FROM app.instance FOR UPDATE")
                .fetch_one(&mut *turn)
                .await
                .map_err(StoreError::from)?;
        if let Some(bound) = bound.filter(|_| !over) {
            return Ok(bound);
        }
        let mark = match artifacts.mark().await? {
            Some(mark) => mark,
            None => {
                let mark = request_id();
                artifacts.set_mark(&mark).await?;
                // A copy of this database may have been quicker.
                artifacts.mark().await?.unwrap_or(mark)
            }
        };
        sqlx::query("UPDATE app.instance SET artifact_store = $1")
            .bind(&mark)
            .execute(&mut *turn)
            .await
            .map_err(StoreError::from)?;
        turn.commit().await.map_err(StoreError::from)?;
        Ok(mark)
    }
}
