//! The workspace of a job: the tree that it finds, and that is handed back as the job leaves it. Content is on disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kodo_contract::{ContentHash, Tree, TreeBounds};
use sha2::{Digest, Sha256};

/// How much is copied at once.
const PIECE: usize = 256 * 1024;

/// Content of files by hash, in one file without a name: it goes with this process, whatever ends it.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    end: u64,
    places: HashMap<ContentHash, Range<u64>>,
}

impl Spool {
    /// An empty one in this folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        Ok(Self::new(tempfile::tempfile_in(folder)?))
    }

    /// An empty one in this file, which nobody else writes to.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            held: Mutex::default(),
        }
    }

    /// Nothing that holds the lock can panic half-way, so what a poisoned one guards is consistent.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, for reading and writing at the places that this says.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Where room for so many bytes begins.
    pub fn reserve(&self, size: u64) -> u64 {
        let mut held = self.held();
        let at = held.end;
        held.end = at.saturating_add(size);
        at
    }

    /// Says that content is there, once all of it has been written.
    pub fn add(&self, hash: ContentHash, place: Range<u64>) {
        self.held().places.insert(hash, place);
    }

    /// Where content is.
    #[must_use]
    pub fn find(&self, hash: &ContentHash) -> Option<Range<u64>> {
        self.held().places.get(hash).cloned()
    }

    /// Adds content of this length.
    ///
    /// # Errors
    /// Those of the reader and of the file system, and of content that ends before its length.
    pub fn keep(&self, from: &mut dyn Read, size: u64) -> io::Result<ContentHash> {
        let begin = self.reserve(size);
        let (mut at, mut hash) = (begin, Sha256::new());
        let mut piece = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
        while at < begin + size {
            let left = usize::try_from(begin + size - at).unwrap_or(usize::MAX);
            let most = piece.len().min(left);
            let count = from.read(&mut piece[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hash.update(&piece[..count]);
            self.file.write_all_at(&piece[..count], at)?;
            at += count as u64;
        }
        let hash = ContentHash::from_digest(hash.finalize().into());
        self.add(hash.clone(), begin..at);
        Ok(hash)
    }

    /// Reads content from its beginning; without an end if it is not there.
    #[must_use]
    pub fn open(&self, hash: &ContentHash) -> Option<SpoolReader> {
        self.find(hash).map(|place| SpoolReader {
            file: self.file(),
            place,
        })
    }

    /// Reads all of some content.
    ///
    /// # Errors
    /// Those of the file system, or [`io::ErrorKind::NotFound`].
    pub fn read(&self, hash: &ContentHash) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut reader = self.open(hash).ok_or(io::ErrorKind::NotFound)?;
        reader.read_to_end(&mut content)?;
        Ok(content)
    }
}

/// Content of a [`Spool`], from its beginning to its end.
#[derive(Debug)]
pub struct SpoolReader {
    file: Arc<File>,
    place: Range<u64>,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.place.end - self.place.start).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.place.start)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.place.start += count as u64;
        Ok(count)
    }
}

/// The workspace of a job.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// What the job finds. What it leaves is in [`JobResult::workspace`](crate::JobResult::workspace).
    pub tree: Tree,
    /// The content of its files; of those that the job leaves, too.
    pub content: Arc<Spool>,
    /// The most that is handed back.
    pub bounds: TreeBounds,
}

/// Two are the same if they are the same place with the same tree.
impl PartialEq for Workspace {
    fn eq(&self, other: &Self) -> bool {
        self.tree == other.tree
            && self.bounds == other.bounds
            && Arc::ptr_eq(&self.content, &other.content)
    }
}

impl Eq for Workspace {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_found_by_its_hash_and_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::in_folder(folder.path()).unwrap();
        for content in ["one", "", "three"] {
            let size = content.len() as u64;
            let hash = spool.keep(&mut content.as_bytes(), size).unwrap();
            assert_eq!(hash, ContentHash::of(content.as_bytes()));
        }
        for content in ["one", "", "three"] {
            let read = spool.read(&ContentHash::of(content.as_bytes())).unwrap();
            assert_eq!(read, content.as_bytes());
        }
        assert!(spool.open(&ContentHash::of(b"two")).is_none());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "it has no name"
        );
    }
}
