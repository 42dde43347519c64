//! The store by `object_store`: a local folder, or a bucket.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use kodo_contract::ContentHash;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use time::{OffsetDateTime, UtcDateTime};

use super::folder::Folder;
use super::store::{ArtifactStore, Held, Listed};
use super::{ArtifactError, Pieces, Place, S3Access, s3};

/// Content that was written within this time is not written again. What is older is: that costs a write where it
/// would have cost none, and mends what became of the old one meanwhile.
const FRESH: Duration = Duration::from_secs(12 * 3600);

/// How long a store may take to begin to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Content by hash, in a local folder or in a bucket. Cheap to clone.
#[derive(Clone)]
pub struct ObjectArtifacts {
    backend: Backend,
    place: Place,
    /// Which product database the content belongs to; none yet where it is empty.
    instance: String,
}

#[derive(Clone)]
enum Backend {
    Folder(Arc<Folder>),
    Bucket(Arc<dyn ObjectStore>),
}

impl ObjectArtifacts {
    /// Names a place. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`ArtifactError::Denied`] where it is a bucket, and there are no credentials or none that can be used.
    pub fn new(place: Place, access: Option<&S3Access>) -> Result<Self, ArtifactError> {
        let backend = match (&place, access) {
            (Place::Folder(root), _) => Backend::Folder(Arc::new(Folder::new(root.clone()))),
            (Place::S3(bucket), Some(access)) => Backend::Bucket(s3::open(bucket, access)?),
            (Place::S3(_), None) => {
                let text = "there are no credentials for it".to_owned();
                return Err(ArtifactError::Denied(text));
            }
        };
        Ok(Self {
            backend,
            place,
            instance: String::new(),
        })
    }

    /// The part that belongs to one product database. Several may share a place: none sees, and none deletes, what
    /// is another one's.
    #[must_use]
    pub fn of_instance(&self, instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            ..self.clone()
        }
    }

    /// Makes the folder, where it is one, so that a place that cannot be written to is known before it is needed.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub async fn prepare(&self) -> Result<(), ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => {
                let folder = Arc::clone(folder);
                blocking(move || folder.make()).await
            }
            Backend::Bucket(_) => Ok(()),
        }
    }

    fn open(&self) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.open(),
            Backend::Bucket(bucket) => Ok(Arc::clone(bucket)),
        }
    }

    /// What every key of this product database begins with.
    fn root(&self) -> Path {
        let prefix = match &self.place {
            Place::Folder(_) => "",
            Place::S3(bucket) => &bucket.prefix,
        };
        Path::from(format!("{prefix}/{}/sha256", self.instance))
    }

    /// By the first two digits, since a folder of very many files is slow in most file systems.
    fn key(&self, hash: &ContentHash) -> Path {
        let text = hash.as_str();
        self.root().join(&text[..2]).join(text)
    }
}

#[async_trait]
impl ArtifactStore for ObjectArtifacts {
    fn place(&self) -> String {
        format!("{} ({})", self.place, self.root())
    }

    async fn put(&self, bytes: Bytes) -> Result<ContentHash, ArtifactError> {
        let hash = ContentHash::of(&bytes);
        self.prepare().await?;
        let fresh = kodo_contract::now() - FRESH;
        if let Some(held) = self.head(&hash).await?
            && held.size == bytes.len() as u64
            && held.written_at > fresh
        {
            return Ok(hash);
        }
        let written = self.open()?;
        let key = self.key(&hash);
        in_time(written.put(&key, PutPayload::from(bytes)))
            .await
            .map_err(ArtifactError::of_write)?;
        Ok(hash)
    }

    async fn head(&self, hash: &ContentHash) -> Result<Option<Held>, ArtifactError> {
        let found = match self.open() {
            Ok(store) => in_time(store.head(&self.key(hash))).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(meta) => Ok(Some(held(&meta))),
            Err(ArtifactError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(
        &self,
        hash: &ContentHash,
        range: Option<Range<u64>>,
    ) -> Result<(Held, Pieces), ArtifactError> {
        let store = self.open()?;
        let key = self.key(hash);
        let options = GetOptions::new().with_range(range.map(GetRange::Bounded));
        let found = in_time(store.get_opts(&key, options)).await?;
        let held = held(&found.meta);
        let pieces = found.into_stream().map_err(ArtifactError::from);
        Ok((held, patient(pieces.boxed())))
    }

    fn list(&self) -> BoxStream<'static, Result<Listed, ArtifactError>> {
        let store = match self.open() {
            Ok(store) => store,
            // Nothing was ever written.
            Err(ArtifactError::Missing) => return stream::empty().boxed(),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let listed = store.list(Some(&self.root())).map_err(ArtifactError::from);
        patient(listed.boxed())
            .try_filter_map(async |meta| {
                let hash = meta.location.filename().and_then(ContentHash::parse);
                // What else is there was put there by somebody else, and is theirs.
                Ok(hash.map(|hash| Listed {
                    hash,
                    held: held(&meta),
                }))
            })
            .boxed()
    }

    async fn delete(&self, hash: &ContentHash) -> Result<(), ArtifactError> {
        let deleted = match self.open() {
            Ok(store) => in_time(store.delete(&self.key(hash))).await,
            Err(error) => Err(error),
        };
        match deleted {
            Err(ArtifactError::Missing) => Ok(()),
            deleted => deleted,
        }
    }

    async fn sweep(&self, older_than: OffsetDateTime, dry_run: bool) -> Result<u64, ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => {
                let folder = Arc::clone(folder);
                let below = folder.root().join(&self.instance);
                blocking(move || folder.sweep(&below, older_than, dry_run)).await
            }
            // A bucket shows nothing of an upload that did not end.
            Backend::Bucket(_) => Ok(0),
        }
    }
}

fn held(meta: &ObjectMeta) -> Held {
    let nanoseconds = i128::from(meta.last_modified.timestamp_micros()) * 1000;
    let written_at = UtcDateTime::from_unix_timestamp_nanos(nanoseconds);
    Held {
        size: meta.size,
        // A time that no calendar of ours has is older than any other.
        written_at: written_at.map_or(OffsetDateTime::UNIX_EPOCH, Into::into),
    }
}

/// Bounds how long a store may take to answer.
async fn in_time<T>(
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, ArtifactError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(silent()),
    }
}

/// Bounds how long each further piece may take.
fn patient<T: Send + 'static>(
    pieces: BoxStream<'static, Result<T, ArtifactError>>,
) -> BoxStream<'static, Result<T, ArtifactError>> {
    stream::try_unfold(pieces, async |mut pieces| {
        match tokio::time::timeout(ANSWER_TIMEOUT, pieces.try_next()).await {
            Ok(Ok(Some(piece))) => Ok(Some((piece, pieces))),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(silent()),
        }
    })
    .boxed()
}

fn silent() -> ArtifactError {
    ArtifactError::Unavailable(format!("no answer within {ANSWER_TIMEOUT:?}"))
}

/// Runs what waits for the file system where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(ArtifactError::Unavailable(error.to_string())),
    }
}
