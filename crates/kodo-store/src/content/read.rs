//! Reads content and verifies it against the hash that it is stored under.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use kodo_contract::ContentHash;
use sha2::{Digest, Sha256};

use super::{ArtifactError, ArtifactStore};

/// A piece of content.
pub type Piece = Result<Bytes, ArtifactError>;

/// Content on its way.
pub type Pieces = BoxStream<'static, Piece>;

/// Up to this many bytes, content is compared with its hash before the first of them is handed on.
const WHOLE: u64 = 1 << 20;

/// How much is written to a file at once.
const PIECE: usize = 256 * 1024;

/// Reads content of a known size, or a range of it, and makes sure that it fits its hash.
///
/// Content of up to 1 MiB is returned after all of it was read and its hash was found to match. Longer content is streamed while it is read, except for its last piece: that follows once the hash matches, and
/// otherwise an error does. So a caller never gets all of something that does not match. Of a range, nothing else is read,
/// and only the size of the whole is compared: who puts ranges together compares the whole with its hash.
///
/// # Errors
/// [`ArtifactError::Missing`] if nothing is stored under the hash, [`ArtifactError::Damaged`] if something else is, or the
/// error of the store. The stream ends with an error in the same cases.
pub async fn read(
    store: &dyn ArtifactStore,
    hash: &ContentHash,
    size: u64,
    range: Option<Range<u64>>,
) -> Result<Pieces, ArtifactError> {
    if let Some(range) = range {
        let info = store.head(hash).await?.ok_or(ArtifactError::Missing)?;
        fits_size(info.size, size)?;
        let length = range.end - range.start;
        let (_, pieces) = store.get(hash, Some(range)).await?;
        return Ok(exactly(pieces, length));
    }
    let (info, pieces) = store.get(hash, None).await?;
    fits_size(info.size, size)?;
    let pieces = verified(pieces, hash.clone(), size);
    if size > WHOLE {
        return Ok(pieces);
    }
    let whole: Vec<Bytes> = pieces.try_collect().await?;
    let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
    whole
        .iter()
        .for_each(|piece| bytes.extend_from_slice(piece));
    Ok(stream::once(async { Ok(bytes.freeze()) }).boxed())
}

/// Reads all of some content into memory, as [`read`] does.
///
/// # Errors
/// As [`read`].
pub async fn read_whole(
    store: &dyn ArtifactStore,
    hash: &ContentHash,
    size: u64,
) -> Result<Bytes, ArtifactError> {
    let pieces = read(store, hash, size, None).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat().into())
}

/// Reads some content, or a range of it, into a file from this byte on. A range is not compared with anything: the caller
/// knows its hash.
///
/// # Errors
/// As [`read`], or that of the file.
pub async fn read_into(
    store: &dyn ArtifactStore,
    hash: &ContentHash,
    size: u64,
    range: Option<Range<u64>>,
    file: &Arc<File>,
    at: u64,
) -> Result<(), ArtifactError> {
    let mut pieces = match range {
        None => {
            let (info, pieces) = store.get(hash, None).await?;
            fits_size(info.size, size)?;
            verified(pieces, hash.clone(), size)
        }
        Some(range) => {
            let length = range.end - range.start;
            let (info, pieces) = store.get(hash, Some(range)).await?;
            fits_size(info.size, size)?;
            exactly(pieces, length)
        }
    };
    let (mut at, mut held) = (at, BytesMut::new());
    loop {
        let piece = pieces.try_next().await?;
        let over = piece.is_none();
        held.extend_from_slice(&piece.unwrap_or_default());
        if held.len() < PIECE && !over {
            continue;
        }
        let (bytes, to) = (held.split().freeze(), Arc::clone(file));
        let length = bytes.len() as u64;
        let written = tokio::task::spawn_blocking(move || to.write_all_at(&bytes, at));
        match written.await {
            Ok(written) => written?,
            Err(error) => return Err(ArtifactError::Unavailable(error.to_string())),
        }
        at += length;
        if over {
            return Ok(());
        }
    }
}

/// Reads all of some content and compares it with its hash.
///
/// # Errors
/// As [`read`].
pub async fn check(
    store: &dyn ArtifactStore,
    hash: &ContentHash,
    size: u64,
) -> Result<(), ArtifactError> {
    let (info, pieces) = store.get(hash, None).await?;
    fits_size(info.size, size)?;
    verified(pieces, hash.clone(), size)
        .try_for_each(async |_| Ok(()))
        .await
}

fn fits_size(found: u64, expected: u64) -> Result<(), ArtifactError> {
    if found == expected {
        return Ok(());
    }
    let text = format!("it has {found} bytes and not {expected}");
    Err(ArtifactError::Damaged(text))
}

struct Verified {
    pieces: Pieces,
    hash: ContentHash,
    size: u64,
    hasher: Sha256,
    read: u64,
    /// The last piece that was read; not returned yet.
    kept: Option<Bytes>,
    over: bool,
}

/// The same pieces, the last of which is returned only if size and hash match.
fn verified(pieces: Pieces, hash: ContentHash, size: u64) -> Pieces {
    let start = Verified {
        pieces,
        hash,
        size,
        hasher: Sha256::new(),
        read: 0,
        kept: None,
        over: false,
    };
    stream::try_unfold(start, async |mut state| {
        while !state.over {
            match state.pieces.try_next().await? {
                // A file that was truncated after it was opened returns empty pieces without end.
                Some(piece) if piece.is_empty() => state.over = true,
                Some(piece) => {
                    state.hasher.update(&piece);
                    state.read += piece.len() as u64;
                    if let Some(kept) = state.kept.replace(piece) {
                        return Ok(Some((kept, state)));
                    }
                }
                None => state.over = true,
            }
        }
        fits_size(state.read, state.size)?;
        let last = state.kept.take();
        // Otherwise the last piece was returned already.
        if last.is_some() || state.size == 0 {
            let found = hex(&state.hasher.clone().finalize());
            if found != state.hash.as_str() {
                return Err(ArtifactError::Damaged(format!("its hash is {found}")));
            }
        }
        Ok(last.map(|last| (last, state)))
    })
    .boxed()
}

/// The same pieces; an error if they have fewer or more bytes than `length`.
fn exactly(pieces: Pieces, length: u64) -> Pieces {
    stream::try_unfold((pieces, length), async move |(mut pieces, left)| {
        if left == 0 {
            return Ok(None);
        }
        match pieces.try_next().await? {
            Some(piece) if !piece.is_empty() && piece.len() as u64 <= left => {
                let left = left - piece.len() as u64;
                Ok(Some((piece, (pieces, left))))
            }
            _ => Err(ArtifactError::Damaged(
                "it changed while it was read".to_owned(),
            )),
        }
    })
    .boxed()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
