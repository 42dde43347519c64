//! Files that go into a sandbox and come out of it, in frames.

use std::io;
use std::path::{Component, Path};

use kodo_contract::sha256_hex;
use serde::{Deserialize, Serialize};

use super::frames::{CHUNK, FrameKind, frame};
use crate::{InputFile, Limits, OutputFile};

/// A file whose content follows in further frames.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileHeader {
    /// Its path, relative to the job's folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it can be run.
    pub executable: bool,
}

impl From<&InputFile> for FileHeader {
    fn from(file: &InputFile) -> Self {
        Self {
            name: file.name.clone(),
            size: file.content.len() as u64,
            executable: file.executable,
        }
    }
}

/// Appends the content of files, in their order, as frames of this kind.
pub fn extend_with_content<K: FrameKind>(bytes: &mut Vec<u8>, kind: K, files: &[InputFile]) {
    for chunk in files.iter().flat_map(|file| file.content.chunks(CHUNK)) {
        bytes.extend_from_slice(&frame(kind, chunk));
    }
}

/// Files that a process inside a sandbox sends. It handles what a job left, so names, numbers and sizes are checked
/// against the job's limits before anything is kept.
#[derive(Debug, Default)]
pub struct ReceivedFiles(Vec<(FileHeader, Vec<u8>)>);

impl ReceivedFiles {
    /// Whether all of the last file has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0
            .last()
            .is_none_or(|(header, content)| header.size == content.len() as u64)
    }

    /// Whether none has been announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins the next file.
    ///
    /// # Errors
    /// If the one before it is incomplete, its name leads out of the job's folder, or it exceeds a limit.
    pub fn begin(&mut self, header: FileHeader, limits: &Limits) -> io::Result<()> {
        let held: u64 = self.0.iter().map(|(header, _)| header.size).sum();
        let inside = Path::new(&header.name)
            .components()
            .all(|it| matches!(it, Component::Normal(_)));
        let valid = self.is_complete()
            && inside
            && !header.name.is_empty()
            && (self.0.len() as u64) < limits.returned_files
            && held.saturating_add(header.size) <= limits.returned_bytes;
        if !valid {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.push((header, Vec::new()));
        Ok(())
    }

    /// Adds content to the last file.
    ///
    /// # Errors
    /// If there is no file, or it would become larger than announced.
    pub fn append(&mut self, content: &[u8]) -> io::Result<()> {
        match self.0.last_mut() {
            Some((header, held)) if (held.len() + content.len()) as u64 <= header.size => {
                held.extend_from_slice(content);
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The files as the port has them, in the order in which they came, with hashes that are made here.
    #[must_use]
    pub fn into_files(self) -> Vec<OutputFile> {
        let output = |(header, content): (FileHeader, Vec<u8>)| OutputFile {
            name: header.name,
            sha256: sha256_hex(&content),
            content,
            executable: header.executable,
        };
        self.0.into_iter().map(output).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, size: u64) -> FileHeader {
        FileHeader {
            name: name.to_owned(),
            size,
            executable: false,
        }
    }

    #[test]
    fn files_are_received_within_the_limits_and_the_announced_sizes() {
        let limits = Limits {
            returned_files: 2,
            returned_bytes: 10,
            ..Limits::default()
        };
        for bad in ["../x", "/x", "", "a/../../b"] {
            let begun = ReceivedFiles::default().begin(header(bad, 1), &limits);
            assert!(begun.is_err(), "{bad:?}");
        }
        assert!(ReceivedFiles::default().append(b"x").is_err());
        assert!(
            ReceivedFiles::default()
                .begin(header("x", 11), &limits)
                .is_err()
        );
        let mut files = ReceivedFiles::default();
        files.begin(header("a/b", 3), &limits).unwrap();
        files.append(b"ab").unwrap();
        assert!(!files.is_complete());
        assert!(files.begin(header("c", 0), &limits).is_err(), "incomplete");
        assert!(files.append(b"cd").is_err(), "more than was announced");
        files.append(b"c").unwrap();
        files.begin(header("c", 7), &limits).unwrap();
        files.append(b"0123456").unwrap();
        assert!(files.begin(header("d", 0), &limits).is_err(), "too many");
        let files = files.into_files();
        assert_eq!(files[0].content, b"abc");
        assert_eq!(files[0].sha256, sha256_hex(b"abc"));
    }
}
