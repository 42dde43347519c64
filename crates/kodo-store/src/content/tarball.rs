//! A snapshot as a tar archive, written while it is read: one entry after the other, one piece of content after the other.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};
use kodo_contract::{ContentHash, Node, NodeKind, Snapshot, TreePath};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::{ArtifactError, ArtifactStore, Pieces};

/// The size of a block.
const BLOCK: u64 = 512;
/// What fits into the fields of a header.
const SHORT: usize = 100;
const LONG_NAME: &[u8] = b"@long";

/// The archive of a snapshot. Its content is compared with its hashes; the stream ends with an error before the end of a file
/// that is not what its hash says.
pub fn tarball(store: Arc<dyn ArtifactStore>, snapshot: Snapshot) -> Pieces {
    let top = top_of(&snapshot);
    // Hard links last: a file comes before its further names.
    let (links, others): (Vec<_>, Vec<_>) = snapshot
        .entries
        .into_iter()
        .partition(|(_, kept)| matches!(kept.node.kind, NodeKind::HardLink(_)));
    let objects = Arc::new(snapshot.objects);
    let entries = stream::iter(others.into_iter().chain(links)).then(move |(path, kept)| {
        let (store, objects) = (Arc::clone(&store), Arc::clone(&objects));
        async move {
            let head = head_of(&path, &kept.node).map_err(ArtifactError::from)?;
            let head = stream::once(async { Ok(Bytes::from(head)) });
            let (Some((hash, size)), Some(at)) = (kept.node.content(), kept.at) else {
                return Ok::<Pieces, ArtifactError>(head.boxed());
            };
            let range = at.offset..at.offset + size;
            let (_, pieces) = store.get(&objects[at.object].sha256, Some(range)).await?;
            let content = checked(pieces, hash.clone(), size);
            let rest = size.next_multiple_of(BLOCK) - size;
            let padding = vec![0; usize::try_from(rest).unwrap_or_default()];
            let padding = stream::once(async { Ok(Bytes::from(padding)) });
            Ok(head.chain(content).chain(padding).boxed())
        }
    });
    let top = stream::iter(top).map(|node| {
        let head = head_of(&TreePath::new("."), &node).map_err(ArtifactError::from)?;
        Ok(Bytes::from(head))
    });
    let end = stream::once(async { Ok(Bytes::from(vec![0; 2 * BLOCK as usize])) });
    top.chain(entries.try_flatten()).chain(end).boxed()
}

/// The folder itself, if its mode is not the usual one. Its time is not carried: it has that of the youngest entry.
fn top_of(snapshot: &Snapshot) -> Option<Node> {
    let mode = snapshot.root()?;
    let youngest = snapshot.entries.values().map(|it| it.node.modified).max();
    Some(Node::new(
        NodeKind::Folder,
        mode,
        youngest.unwrap_or_default(),
    ))
}

/// Content of this hash and size; its last piece comes only if it is that.
fn checked(pieces: Pieces, hash: ContentHash, size: u64) -> Pieces {
    let state = (pieces, Sha256::new(), 0_u64, BytesMut::new(), hash);
    stream::try_unfold(Some(state), move |state| async move {
        let Some((mut pieces, mut digest, mut read, mut held, hash)) = state else {
            return Ok(None);
        };
        while read < size {
            let Some(piece) = pieces.try_next().await?.filter(|piece| !piece.is_empty()) else {
                break;
            };
            digest.update(&piece);
            read += piece.len() as u64;
            let before = held.split().freeze();
            held.extend_from_slice(&piece);
            if !before.is_empty() {
                return Ok(Some((before, Some((pieces, digest, read, held, hash)))));
            }
        }
        if read != size || ContentHash::from_digest(digest.finalize().into()) != hash {
            return Err(ArtifactError::Damaged(format!(
                "a file of the workspace is not {hash}"
            )));
        }
        Ok(Some((held.freeze(), None)))
    })
    .boxed()
}

/// The blocks before the content of an entry.
fn head_of(path: &TreePath, node: &Node) -> io::Result<Vec<u8>> {
    let mut name = path.as_bytes().to_vec();
    let none = TreePath::new(Vec::new());
    let (kind, size, to) = match &node.kind {
        NodeKind::Folder => {
            name.push(b'/');
            (EntryType::Directory, 0, &none)
        }
        NodeKind::File { size, .. } => (EntryType::Regular, *size, &none),
        NodeKind::Symlink(to) => (EntryType::Symlink, 0, to),
        NodeKind::HardLink(to) => (EntryType::Link, 0, to),
    };
    let (seconds, fraction) = (
        node.modified.div_euclid(1_000_000_000),
        node.modified.rem_euclid(1_000_000_000),
    );
    let mut more: Vec<(&str, Vec<u8>)> = Vec::new();
    if fraction != 0 || seconds < 0 {
        let (sign, nanoseconds) = if node.modified < 0 {
            ("-", node.modified.unsigned_abs())
        } else {
            ("", node.modified.unsigned_abs())
        };
        let text = format!(
            "{sign}{}.{:09}",
            nanoseconds / 1_000_000_000,
            nanoseconds % 1_000_000_000
        );
        more.push(("mtime", text.into_bytes()));
    }
    let mut header = Header::new_ustar();
    let fields = header.as_old_mut();
    for (key, value, field) in [
        ("path", &name[..], &mut fields.name),
        ("linkpath", to.as_bytes(), &mut fields.linkname),
    ] {
        // Other programs take bytes beyond ASCII for text in some encoding, but for those of a pax header.
        if value.len() > SHORT || !value.is_ascii() {
            more.push((key, value.to_vec()));
            field[..LONG_NAME.len()].copy_from_slice(LONG_NAME);
        } else {
            field[..value.len()].copy_from_slice(value);
        }
    }
    header.set_entry_type(kind);
    header.set_mode(node.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    header.set_size(size);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions(more.iter().map(|(key, value)| (*key, value.as_slice())))?;
    builder.append(&header, io::empty())?;
    // What the builder writes as it is dropped is the end of an archive, which this is not.
    Ok(std::mem::take(builder.get_mut()))
}
