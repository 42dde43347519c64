//! The artifact store over `object_store`: a local folder, or a bucket.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use kodo_contract::ContentHash;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use time::{OffsetDateTime, UtcDateTime};
use tokio::sync::Semaphore;

use super::folder::Folder;
use super::store::{ArtifactStore, ContentInfo, Listed};
use super::{ArtifactError, Pieces, Place, S3Access, s3};

/// Content that was written within this time is not written again. Older content is: that costs a write, and repairs
/// content that was damaged since.
const FRESH: Duration = Duration::from_secs(12 * 3600);

/// Content is sent to a bucket in parts of this size, and in one if it is smaller: the least that S3 takes of all but the last.
const PART: u64 = 5 << 20;

/// How much is read from a file at once, and written to a folder. Larger pieces would cost memory and gain nothing.
const PIECE: u64 = 1 << 20;

/// Parts that this process sends at the same time. Further ones wait: what is sent is in memory.
const PARTS_AT_ONCE: usize = 4;

/// How long a store may take to begin to answer, and to take one piece.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Content by hash, in a local folder or in a bucket. Cheap to clone.
#[derive(Clone)]
pub struct ObjectArtifacts {
    backend: Backend,
    place: Place,
    /// The product database that the content belongs to; empty if it is not known yet.
    instance: String,
    parts: Arc<Semaphore>,
}

#[derive(Clone)]
enum Backend {
    Folder(Arc<Folder>),
    Bucket(Arc<dyn ObjectStore>),
}

impl ObjectArtifacts {
    /// A store at a place. Does not connect.
    ///
    /// # Errors
    /// [`ArtifactError::Denied`] if it is a bucket and there are no usable credentials.
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
            parts: Arc::new(Semaphore::new(PARTS_AT_ONCE)),
        })
    }

    /// The part of the store that belongs to one product database. Several may share a place: none sees or deletes the
    /// content of another.
    #[must_use]
    pub fn of_instance(&self, instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            ..self.clone()
        }
    }

    /// Creates the folder, if the store is one, so that a place that cannot be written to is noticed at start.
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

    /// The mark of the part that belongs to the product database; `None` if it has none yet.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub async fn mark(&self) -> Result<Option<String>, ArtifactError> {
        let read = async {
            let store = self.open()?;
            let found = in_time(store.get(&self.mark_key())).await?;
            in_time(found.bytes()).await
        };
        match read.await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(ArtifactError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the mark, unless there is one: then that one stays.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub async fn set_mark(&self, mark: &str) -> Result<(), ArtifactError> {
        self.prepare().await?;
        let store = self.open()?;
        let bytes = PutPayload::from(format!("{mark}\n"));
        let key = self.mark_key();
        let created = store.put_opts(&key, bytes.clone(), PutMode::Create.into());
        match tokio::time::timeout(ANSWER_TIMEOUT, created).await {
            Ok(Ok(_) | Err(object_store::Error::AlreadyExists { .. })) => return Ok(()),
            // Not every compatible store has conditional writes.
            Ok(Err(_)) => {}
            Err(_) => return Err(silent()),
        }
        in_time(store.put(&key, bytes))
            .await
            .map(drop)
            .map_err(ArtifactError::of_write)
    }

    fn mark_key(&self) -> Path {
        Path::from(format!("{}/{}/mark", self.prefix(), self.instance))
    }

    /// Whether the folder is missing, if the store is one.
    #[must_use]
    pub fn is_missing_folder(&self) -> bool {
        matches!(&self.place, Place::Folder(folder) if !folder.is_dir())
    }

    /// Whether content of this size was stored not long ago.
    async fn is_fresh(&self, hash: &ContentHash, size: u64) -> Result<bool, ArtifactError> {
        let fresh = kodo_contract::now() - FRESH;
        let there = self.head(hash).await?;
        Ok(there.is_some_and(|info| info.size == size && info.written_at > fresh))
    }

    fn open(&self) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.open(),
            Backend::Bucket(bucket) => Ok(Arc::clone(bucket)),
        }
    }

    /// What every key of this product database begins with.
    fn root(&self) -> Path {
        Path::from(format!("{}/{}/sha256", self.prefix(), self.instance))
    }

    fn prefix(&self) -> &str {
        match &self.place {
            Place::Folder(_) => "",
            Place::S3(bucket) => &bucket.prefix,
        }
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

    async fn probe(&self) -> Result<(), ArtifactError> {
        match self.mark().await? {
            Some(_) => Ok(()),
            None => Err(ArtifactError::Unavailable(format!(
                "{} has no mark any more: it was emptied, or something else is in its place",
                self.place()
            ))),
        }
    }

    async fn put(&self, bytes: Bytes) -> Result<ContentHash, ArtifactError> {
        let hash = ContentHash::of(&bytes);
        self.prepare().await?;
        if self.is_fresh(&hash, bytes.len() as u64).await? {
            return Ok(hash);
        }
        let written = self.open()?;
        let key = self.key(&hash);
        in_time(written.put(&key, PutPayload::from(bytes)))
            .await
            .map_err(ArtifactError::of_write)?;
        Ok(hash)
    }

    async fn put_file(
        &self,
        file: Arc<File>,
        range: Range<u64>,
        hash: &ContentHash,
    ) -> Result<(), ArtifactError> {
        let size = range.end - range.start;
        self.prepare().await?;
        if self.is_fresh(hash, size).await? {
            return Ok(());
        }
        let store = self.open()?;
        let key = self.key(hash);
        let part = match self.backend {
            Backend::Folder(_) => PIECE,
            Backend::Bucket(_) => PART,
        };
        // Nobody closes the semaphore.
        let turn = || async { self.parts.acquire().await.map_err(|_| silent()) };
        if size <= part {
            let _turn = turn().await?;
            let content = part_of(file, range).await?;
            let put = in_time(store.put(&key, content)).await;
            return put.map(drop).map_err(ArtifactError::of_write);
        }
        let mut upload = in_time(store.put_multipart(&key))
            .await
            .map_err(ArtifactError::of_write)?;
        let sent = async {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + part);
                let _turn = turn().await?;
                let content = part_of(Arc::clone(&file), at..end).await?;
                in_time(upload.put_part(content)).await?;
                at = end;
            }
            in_time(upload.complete()).await
        };
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) => {
                // What was sent would stay at the store, unseen. If that cannot be said either, its owner's rules clean up.
                let _ = in_time(upload.abort()).await;
                Err(error.of_write())
            }
        }
    }

    async fn head(&self, hash: &ContentHash) -> Result<Option<ContentInfo>, ArtifactError> {
        let found = match self.open() {
            Ok(store) => in_time(store.head(&self.key(hash))).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(meta) => Ok(Some(info(&meta))),
            Err(ArtifactError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(
        &self,
        hash: &ContentHash,
        range: Option<Range<u64>>,
    ) -> Result<(ContentInfo, Pieces), ArtifactError> {
        let store = self.open()?;
        let key = self.key(hash);
        let options = GetOptions::new().with_range(range.map(GetRange::Bounded));
        let found = in_time(store.get_opts(&key, options)).await?;
        let info = info(&found.meta);
        let pieces = found.into_stream().map_err(ArtifactError::from);
        Ok((info, patient(pieces.boxed())))
    }

    fn list(&self) -> BoxStream<'static, Result<Listed, ArtifactError>> {
        let store = match self.open() {
            Ok(store) => store,
            // The folder is created by the first write.
            Err(ArtifactError::Missing) => return stream::empty().boxed(),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let listed = store.list(Some(&self.root())).map_err(ArtifactError::from);
        patient(listed.boxed())
            .try_filter_map(async |meta| {
                let hash = meta.location.filename().and_then(ContentHash::parse);
                // Other files are not ours.
                Ok(hash.map(|hash| Listed {
                    hash,
                    info: info(&meta),
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
            // An upload that did not end leaves no object.
            Backend::Bucket(_) => Ok(0),
        }
    }
}

/// Reads a range of a file, in pieces: allocations of a few sizes are what the allocator gives back.
async fn part_of(file: Arc<File>, range: Range<u64>) -> Result<PutPayload, ArtifactError> {
    blocking(move || {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PIECE);
            let mut bytes = vec![0; usize::try_from(end - at).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, at)?;
            pieces.push(Bytes::from(bytes));
            at = end;
        }
        Ok(pieces.into_iter().collect())
    })
    .await
}

fn info(meta: &ObjectMeta) -> ContentInfo {
    let nanoseconds = i128::from(meta.last_modified.timestamp_micros()) * 1000;
    let written_at = UtcDateTime::from_unix_timestamp_nanos(nanoseconds);
    ContentInfo {
        size: meta.size,
        // A time that cannot be represented counts as very old.
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

/// Runs blocking calls to the file system on a thread for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(ArtifactError::Unavailable(error.to_string())),
    }
}
