//! The workspace of a run: one tree, kept after each step as a snapshot, and restored before the next one.
//!
//! A snapshot is its manifest in the artifact store, with content that earlier snapshots have stored already left where it is.
//! Small files go into one object together: a thousand objects of a few bytes would take a thousand durable writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::sync::Arc;

use kodo_contract::{
    At, Branch, ContentHash, ErrorCode, Object, RunId, Snapshot, SnapshotRef, StepId, ToolResult,
    Tree, Writer, decode, merge,
};
use kodo_sandbox::{Spool, Workspace};
use kodo_store::content::{ArtifactError, read_into, read_whole};
use sha2::{Digest, Sha256};

use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::large::Large;

/// From this many bytes on, content is an object of its own.
const OWN_OBJECT: u64 = 1 << 20;
/// The longest manifest.
const MAX_MANIFEST: usize = 64 << 20;
/// How much is copied at once.
const PIECE: usize = 1 << 20;

/// What depends on what in a plan, by the indexes of its calls.
pub(crate) struct Order<'a> {
    /// What each call depends on directly.
    pub(crate) direct: &'a [Vec<usize>],
    /// The same with what those depend on.
    pub(crate) all: &'a [Vec<usize>],
}

impl Order<'_> {
    /// The calls whose end states a call finds: those that it depends on and that none of the others depends on.
    fn last(&self, call: usize) -> Vec<usize> {
        let direct = &self.direct[call];
        let is_before_another =
            |it: &usize| direct.iter().any(|other| self.all[*other].contains(it));
        direct
            .iter()
            .copied()
            .filter(|it| !is_before_another(it))
            .collect()
    }
}

/// A snapshot that is going to be recorded.
#[derive(Debug)]
pub(crate) struct Saved {
    /// What its row says of it.
    pub(crate) reference: SnapshotRef,
    /// All content that it needs.
    pub(crate) objects: Vec<Object>,
    /// What of it has to be stored before.
    pub(crate) new: Vec<(ContentHash, Large)>,
}

/// A file without a name in the folder for such, which is made if it is missing.
pub(crate) fn spool(ctx: &RunContext) -> Result<Arc<Spool>, RunFailure> {
    let mut folder = fs::DirBuilder::new();
    let made = folder.recursive(true).mode(0o700).create(&ctx.spool);
    let spool = made.and_then(|()| Spool::in_folder(&ctx.spool));
    spool.map(Arc::new).map_err(disk)
}

/// This machine has no room for the content of a workspace, or does not let us. Tried again a few times.
pub(crate) fn disk(error: io::Error) -> RunFailure {
    let error = ArtifactError::from(error);
    RunFailure {
        retryable: error.is_transient(),
        ..RunFailure::new(
            error.code(),
            format!("the content of the workspace cannot be written below KODO_DATA_DIR: {error}"),
        )
    }
}

/// The snapshot that a call finds.
///
/// # Errors
/// `workspace_conflict`, a row or content that is not there any more.
pub(crate) async fn found_by(
    ctx: &RunContext,
    run_id: &RunId,
    order: &Order<'_>,
    call: usize,
    base: &SnapshotRef,
) -> Result<Snapshot, RunFailure> {
    let last = order.last(call);
    if last.is_empty() {
        return load(ctx, base).await;
    }
    let mut branches = Vec::with_capacity(last.len());
    for before in last {
        let step_id = StepId::tool(before);
        let output = ctx.recorded_output(run_id, &step_id).await?;
        let result: ToolResult =
            decode(&output).map_err(RunFailure::invalid(ErrorCode::StoredResultInvalid))?;
        let reference = result.workspace.ok_or_else(|| {
            let text = format!(
                "step {step_id} has no workspace: it was carried out by {}, which keeps none",
                result.provider
            );
            RunFailure::new(ErrorCode::StoredResultInvalid, text)
        })?;
        let knows = order.all[before].iter().chain([&before]);
        branches.push(Branch {
            end: load(ctx, &reference).await?,
            knows: knows.filter_map(|it| u32::try_from(*it).ok()).collect(),
        });
    }
    merge(branches).map_err(|conflict| {
        let text = format!(
            "{conflict}; let one depend on the other, or let them write to different paths"
        );
        RunFailure::new(ErrorCode::WorkspaceConflict, text)
    })
}

async fn load(ctx: &RunContext, reference: &SnapshotRef) -> Result<Snapshot, RunFailure> {
    let SnapshotRef { sha256, size, .. } = reference;
    let json = ctx
        .retry_artifacts(|| read_whole(&*ctx.artifacts, sha256, *size))
        .await?;
    read_snapshot(&json, sha256)
}

/// Reads a manifest.
///
/// # Errors
/// If it is none.
pub(crate) fn read_snapshot(json: &[u8], sha256: &ContentHash) -> Result<Snapshot, RunFailure> {
    let snapshot = serde_json::from_slice(json).ok().filter(Snapshot::is_whole);
    snapshot.ok_or_else(|| {
        let text =
            format!("the workspace {sha256} was not written by this version, nor by an older one");
        RunFailure::new(ErrorCode::StoredResultInvalid, text)
    })
}

/// Brings the content of a snapshot to this machine.
///
/// # Errors
/// `workspace_too_large`, or what the artifact store answers.
pub(crate) async fn restored(
    ctx: &RunContext,
    snapshot: &Snapshot,
) -> Result<Workspace, RunFailure> {
    let tree = snapshot.tree();
    tree.check(&ctx.bounds)
        .map_err(|fault| RunFailure::new(ErrorCode::WorkspaceTooLarge, fault.to_string()))?;
    let content = spool(ctx)?;
    let mut needed: BTreeMap<usize, HashMap<&ContentHash, Range<u64>>> = BTreeMap::new();
    for kept in snapshot.entries.values() {
        if let (Some((hash, size)), Some(At { object, offset })) = (kept.node.content(), kept.at) {
            needed
                .entry(object)
                .or_default()
                .insert(hash, offset..offset + size);
        }
    }
    for (index, files) in needed {
        let object = &snapshot.objects[index];
        let live: u64 = files.values().map(|it| it.end - it.start).sum();
        // Reading all of it at once is quicker than a request for each part.
        let ranges: Vec<Option<Range<u64>>> = match live >= object.size / 2 {
            true => vec![None],
            false => files.values().cloned().map(Some).collect(),
        };
        for range in ranges {
            let whole = range.clone().unwrap_or(0..object.size);
            let at = content.reserve(whole.end - whole.start);
            let file = content.file();
            let read = || {
                read_into(
                    &*ctx.artifacts,
                    &object.sha256,
                    object.size,
                    range.clone(),
                    &file,
                    at,
                )
            };
            ctx.retry_artifacts(read).await?;
            for (hash, place) in &files {
                if whole.start <= place.start && place.end <= whole.end {
                    let begin = at + (place.start - whole.start);
                    content.add((*hash).clone(), begin..begin + (place.end - place.start));
                }
            }
        }
    }
    Ok(Workspace {
        tree,
        content,
        bounds: ctx.bounds,
    })
}

/// The snapshot of a workspace as a call left it that had found `before`.
///
/// # Errors
/// `workspace_too_large`, or an error of this machine's disk.
pub(crate) async fn saved(
    before: Snapshot,
    left: Tree,
    by: Writer,
    content: Arc<Spool>,
) -> Result<Saved, RunFailure> {
    let work = move || save(&before, left, by, &content);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| disk(io::Error::other(error)))?
}

fn save(before: &Snapshot, left: Tree, by: Writer, content: &Spool) -> Result<Saved, RunFailure> {
    let (entries, bytes) = (left.len() as u64, left.bytes());
    let mut after = before.after(left, by);
    unpack_sparse_objects(&mut after, content);
    let mut small: BTreeMap<ContentHash, u64> = BTreeMap::new();
    let mut places: HashMap<ContentHash, At> = HashMap::new();
    let mut new = Vec::new();
    let unplaced = after.entries.values().filter(|kept| kept.at.is_none());
    let mut unplaced: Vec<(ContentHash, u64)> = unplaced
        .filter_map(|kept| kept.node.content().map(|(hash, size)| (hash.clone(), size)))
        .filter(|(_, size)| *size > 0)
        .collect();
    unplaced.sort();
    unplaced.dedup();
    for (hash, size) in unplaced {
        if size < OWN_OBJECT {
            small.insert(hash, size);
            continue;
        }
        let place = content.find(&hash).ok_or_else(|| missing(&hash))?;
        let object = after.objects.len();
        after.objects.push(Object {
            sha256: hash.clone(),
            size,
        });
        new.push((hash.clone(), Large::File(content.file(), place)));
        places.insert(hash, At { object, offset: 0 });
    }
    if !small.is_empty() {
        let object = after.objects.len();
        let (packed, range, offsets) = pack(&small, content).map_err(disk)?;
        places.extend(
            offsets
                .into_iter()
                .map(|(hash, offset)| (hash, At { object, offset })),
        );
        let size = range.end - range.start;
        after.objects.push(Object {
            sha256: packed.clone(),
            size,
        });
        new.push((packed, Large::File(content.file(), range)));
    }
    for kept in after.entries.values_mut().filter(|kept| kept.at.is_none()) {
        kept.at = kept
            .node
            .content()
            .and_then(|(hash, _)| places.get(hash).copied());
    }
    let json = manifest(&after, MAX_MANIFEST)?;
    let size = json.len() as u64;
    let sha256 = ContentHash::of(&json);
    new.push((sha256.clone(), Large::Memory(json.into())));
    let manifest = Object {
        sha256: sha256.clone(),
        size,
    };
    let objects: BTreeSet<Object> = after.objects.into_iter().chain([manifest]).collect();
    Ok(Saved {
        reference: SnapshotRef {
            sha256,
            size,
            entries,
            bytes,
        },
        objects: objects.into_iter().collect(),
        new,
    })
}

/// What is stored of a snapshot. It is not written further than the limit.
fn manifest(snapshot: &Snapshot, most: usize) -> Result<Vec<u8>, RunFailure> {
    struct Limited(Vec<u8>, usize);
    impl io::Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.1 - self.0.len() {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut json = Limited(Vec::new(), most);
    match serde_json::to_writer(&mut json, snapshot) {
        Ok(()) => Ok(json.0),
        Err(error) if error.is_io() => {
            let entries = snapshot.entries.len();
            let text = format!(
                "the names of the {entries} entries of the workspace, and of what was removed from it, take more than \
                 {most} bytes, the most that is carried"
            );
            Err(RunFailure::new(ErrorCode::WorkspaceTooLarge, text))
        }
        Err(error) => Err(disk(error.into())),
    }
}

fn missing(hash: &ContentHash) -> RunFailure {
    let text = format!("content {hash} of the workspace has not come");
    RunFailure::new(ErrorCode::ToolResultInvalid, text)
}

/// Content in objects of which less than half is needed any more gets a new place, so that what a call reads to find its
/// workspace is never much more than that.
fn unpack_sparse_objects(snapshot: &mut Snapshot, content: &Spool) {
    let mut live: HashMap<usize, BTreeMap<u64, u64>> = HashMap::new();
    for kept in snapshot.entries.values() {
        if let (Some((_, size)), Some(at)) = (kept.node.content(), kept.at) {
            live.entry(at.object).or_default().insert(at.offset, size);
        }
    }
    let is_sparse = |object: usize| {
        let needed: u64 = live.get(&object).map_or(0, |places| places.values().sum());
        needed < snapshot.objects[object].size / 2
    };
    let sparse: BTreeSet<usize> = (0..snapshot.objects.len())
        .filter(|it| is_sparse(*it))
        .collect();
    for kept in snapshot.entries.values_mut() {
        if let (Some((hash, _)), Some(at)) = (kept.node.content(), kept.at)
            && sparse.contains(&at.object)
            && content.find(hash).is_some()
        {
            kept.at = None;
        }
    }
    snapshot.forget_unused();
}

/// Hash and place of small content that lies together, and where each begins in it.
type Packed = (ContentHash, Range<u64>, Vec<(ContentHash, u64)>);

/// Writes small content one after the other.
fn pack(small: &BTreeMap<ContentHash, u64>, content: &Spool) -> io::Result<Packed> {
    let size: u64 = small.values().sum();
    let (begin, file) = (content.reserve(size), content.file());
    let (mut hash, mut offsets, mut at) = (Sha256::new(), Vec::new(), begin);
    let mut piece = Vec::with_capacity(PIECE);
    for file_hash in small.keys() {
        offsets.push((file_hash.clone(), at - begin + piece.len() as u64));
        piece.append(&mut content.read(file_hash)?);
        if piece.len() >= PIECE {
            hash.update(&piece);
            file.write_all_at(&piece, at)?;
            at += piece.len() as u64;
            piece.clear();
        }
    }
    hash.update(&piece);
    file.write_all_at(&piece, at)?;
    Ok((
        ContentHash::from_digest(hash.finalize().into()),
        begin..begin + size,
        offsets,
    ))
}

#[cfg(test)]
mod tests {
    use kodo_contract::{Node, NodeKind};

    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(folder.path()).unwrap();
        (folder, spool)
    }

    fn file(spool: &Spool, content: &[u8]) -> Node {
        let size = content.len() as u64;
        let sha256 = spool.keep(&mut &*content, size).unwrap();
        Node::new(NodeKind::File { sha256, size }, 0o644, 0)
    }

    fn snapshot(saved: &Saved) -> Snapshot {
        let Some((_, Large::Memory(json))) = saved.new.last() else {
            panic!("the manifest is the last");
        };
        let snapshot: Snapshot = serde_json::from_slice(json).unwrap();
        assert!(snapshot.is_whole());
        snapshot
    }

    #[test]
    fn what_was_stored_before_is_not_stored_again_and_small_files_share_an_object() {
        let (_folder, spool) = spool();
        let large = vec![7; OWN_OBJECT as usize];
        let tree: Tree = [
            ("a".into(), file(&spool, b"one")),
            ("b".into(), file(&spool, b"two")),
            ("copy".into(), file(&spool, b"one")),
            ("large".into(), file(&spool, &large)),
            ("none".into(), file(&spool, b"")),
        ]
        .into_iter()
        .collect();
        let first = save(&Snapshot::default(), tree.clone(), None, &spool).unwrap();
        assert_eq!(
            first.new.len(),
            3,
            "the large file, the small ones, the manifest"
        );
        assert_eq!(
            (first.reference.entries, first.reference.bytes),
            (5, OWN_OBJECT + 9)
        );
        let begun = snapshot(&first);
        let mut changed = tree;
        changed.put("b".into(), file(&spool, b"new"));
        let second = save(&begun, changed, Some(0), &spool).unwrap();
        assert_eq!(second.new.len(), 2, "what is new, and the manifest");
        assert_eq!(second.objects.len(), 4, "all that it needs is named");
        let ended = snapshot(&second);
        for (path, content) in [
            ("a", &b"one"[..]),
            ("copy", b"one"),
            ("b", b"new"),
            ("large", &large),
        ] {
            let kept = &ended.entries[&path.into()];
            assert_eq!(kept.node.content().unwrap().0, &ContentHash::of(content));
        }
    }

    #[test]
    fn a_manifest_is_not_written_further_than_its_limit() {
        let (_folder, spool) = spool();
        let tree: Tree = [("a".into(), file(&spool, b""))].into_iter().collect();
        let after = Snapshot::default().after(tree, None);
        let whole = serde_json::to_vec(&after).unwrap();
        assert_eq!(manifest(&after, whole.len()).unwrap(), whole);
        let error = manifest(&after, whole.len() - 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::WorkspaceTooLarge.as_str());
        assert!(error.message.contains("more than"), "{}", error.message);
    }

    #[test]
    fn an_object_that_is_hardly_needed_any_more_is_given_up() {
        let (_folder, spool) = spool();
        let long = file(&spool, &[1; 1000]);
        let tree: Tree = [
            ("long".into(), long),
            ("short".into(), file(&spool, b"short")),
        ]
        .into_iter()
        .collect();
        let begun = snapshot(&save(&Snapshot::default(), tree.clone(), None, &spool).unwrap());
        let mut left = tree;
        left.remove(&"long".into());
        let after = save(&begun, left, Some(0), &spool).unwrap();
        assert_eq!(after.new.len(), 2, "what is left has been packed anew");
        let ended = snapshot(&after);
        assert_eq!(ended.objects.len(), 1);
        assert_eq!(ended.objects[0].size, 5);
    }

    #[test]
    fn a_call_finds_the_ends_that_no_other_dependency_has_seen() {
        let direct = [vec![], vec![0], vec![0], vec![0, 1, 2]];
        let all = [vec![], vec![0], vec![0], vec![0, 1, 2]];
        let order = Order {
            direct: &direct,
            all: &all,
        };
        assert_eq!(order.last(3), [1, 2]);
        assert!(order.last(0).is_empty());
    }
}
