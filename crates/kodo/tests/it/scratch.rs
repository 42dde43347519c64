//! A folder of a test's own.

use std::path::{Path, PathBuf};

/// The folder. Dropping it removes it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty folder; `test` is a name that no other test uses.
    pub fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kodo_it_{}_{test}", std::process::id()));
        // A process with the same id may have been killed before it could clean up.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a folder");
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
