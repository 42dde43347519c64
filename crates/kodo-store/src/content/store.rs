//! The port: what every artifact store can do.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use kodo_contract::ContentHash;
use time::OffsetDateTime;

use super::{ArtifactError, Pieces};

/// Content under its hash, of one product database.
///
/// Writing is durable and whole: a `put` that returned has content that survives a crash of the machine, and one that
/// did not return has left nothing that a reader could take for content.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Where it is, for people; without secrets.
    fn place(&self) -> String;

    /// Stores content, unless it was stored not long ago, and returns its hash.
    async fn put(&self, bytes: Bytes) -> Result<ContentHash, ArtifactError>;

    /// What it has under a hash; `None` where it has nothing.
    async fn head(&self, hash: &ContentHash) -> Result<Option<Held>, ArtifactError>;

    /// The bytes under a hash, or a range of them, just as they are there: [`read`](super::read) verifies them.
    async fn get(
        &self,
        hash: &ContentHash,
        range: Option<Range<u64>>,
    ) -> Result<(Held, Pieces), ArtifactError>;

    /// Everything that is there.
    fn list(&self) -> BoxStream<'static, Result<Listed, ArtifactError>>;

    /// Deletes what is under a hash. That there is nothing is no error.
    async fn delete(&self, hash: &ContentHash) -> Result<(), ArtifactError>;

    /// Deletes what writes that never ended left behind, if it is older than that; how many there were. With
    /// `dry_run` it counts them.
    async fn sweep(&self, older_than: OffsetDateTime, dry_run: bool) -> Result<u64, ArtifactError>;
}

/// What a store knows of content without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its length, in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub written_at: OffsetDateTime,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The hash that it is stored under.
    pub hash: ContentHash,
    /// What is there.
    pub held: Held,
}
