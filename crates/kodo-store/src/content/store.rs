//! The trait of artifact stores.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use kodo_contract::ContentHash;
use time::OffsetDateTime;

use super::{ArtifactError, Pieces};

/// Content under its hash, of one product database.
///
/// Writes are durable and atomic: after a `put` returns, the content survives a crash of the machine; a `put` that did not
/// return leaves nothing that could be read as content.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// The location, for people; without secrets.
    fn place(&self) -> String;

    /// Reads something small that is there, to see that the store works.
    async fn probe(&self) -> Result<(), ArtifactError>;

    /// Stores content, unless it was stored not long ago, and returns its hash.
    async fn put(&self, bytes: Bytes) -> Result<ContentHash, ArtifactError>;

    /// Stores a range of a file, as [`put`](Self::put) does, in pieces. `hash` is that of the range.
    async fn put_file(
        &self,
        file: Arc<File>,
        range: Range<u64>,
        hash: &ContentHash,
    ) -> Result<(), ArtifactError>;

    /// Size and time of what is stored under a hash; `None` if nothing is.
    async fn head(&self, hash: &ContentHash) -> Result<Option<ContentInfo>, ArtifactError>;

    /// The bytes under a hash, or a range of them, unverified: [`read`](super::read) verifies them.
    async fn get(
        &self,
        hash: &ContentHash,
        range: Option<Range<u64>>,
    ) -> Result<(ContentInfo, Pieces), ArtifactError>;

    /// All content of this product database.
    fn list(&self) -> BoxStream<'static, Result<Listed, ArtifactError>>;

    /// Deletes the content under a hash; no error if there is none.
    async fn delete(&self, hash: &ContentHash) -> Result<(), ArtifactError>;

    /// Deletes what interrupted writes left behind before `older_than`, and returns how many there were. With `dry_run` it
    /// only counts them.
    async fn sweep(&self, older_than: OffsetDateTime, dry_run: bool) -> Result<u64, ArtifactError>;
}

/// Size and time of stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentInfo {
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
    /// Its size and time.
    pub info: ContentInfo,
}
