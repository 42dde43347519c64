//! Content on its way into the artifact store.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use kodo_contract::ContentHash;
use kodo_store::content::{ArtifactError, ArtifactStore};

/// Content that is too large for a row: in memory, or a range of a file.
#[derive(Clone, Debug)]
pub(crate) enum Large {
    Memory(Bytes),
    File(Arc<File>, Range<u64>),
}

impl Large {
    /// Its length, in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, range) => range.end - range.start,
        }
    }

    /// Stores it.
    pub(crate) async fn put(
        &self,
        store: &dyn ArtifactStore,
        hash: &ContentHash,
    ) -> Result<(), ArtifactError> {
        match self {
            Self::Memory(bytes) => store.put(bytes.clone()).await.map(drop),
            Self::File(file, range) => store.put_file(Arc::clone(file), range.clone(), hash).await,
        }
    }
}
