//! Where everything lies: clusters, their lock and their logs, fetched binaries.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::error::DevDbError;
use crate::identity::Identity;

/// The folders of one data folder.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Absolute: servers and their pid files name their folder so.
    data_dir: PathBuf,
}

impl Places {
    /// The places of a data folder that exists already.
    pub(crate) fn find(data_dir: &Path) -> Option<Self> {
        let data_dir = data_dir.canonicalize().ok()?;
        data_dir.join("pg").is_dir().then_some(Self { data_dir })
    }

    /// The places of `data_dir`, which is created where it is missing.
    pub(crate) fn make(data_dir: &Path) -> Result<Self, DevDbError> {
        fs::create_dir_all(data_dir.join("pg")).map_err(DevDbError::at(data_dir))?;
        let data_dir = data_dir.canonicalize().map_err(DevDbError::at(data_dir))?;
        Ok(Self { data_dir })
    }

    /// Held by whoever brings a server up or down.
    pub(crate) fn lock(&self) -> PathBuf {
        self.data_dir.join("pg/.lock")
    }

    /// Exists while a container runs that we started; holds the path of its compose file.
    pub(crate) fn compose_marker(&self) -> PathBuf {
        self.data_dir.join("pg/.compose")
    }

    /// The folder for the clusters and fetched binaries of servers that run as `identity`.
    pub(crate) fn base(&self, identity: Identity) -> Result<PathBuf, DevDbError> {
        let Identity::Other(_) = identity else {
            return Ok(self.data_dir.clone());
        };
        let elsewhere = self.elsewhere();
        make_passable(&elsewhere).map_err(DevDbError::at(&elsewhere))?;
        let clusters = elsewhere.join("pg");
        fs::create_dir_all(&clusters).map_err(DevDbError::at(&clusters))?;
        identity.give(&clusters)?;
        Ok(elsewhere)
    }

    /// Every cluster there is, whoever it runs as.
    pub(crate) fn clusters(&self) -> Vec<Cluster> {
        [&self.data_dir, &self.elsewhere()]
            .into_iter()
            .flat_map(|base| Cluster::all_in(base))
            .collect()
    }

    /// The folders that clusters lie in, whether they exist or not.
    pub(crate) fn cluster_folders(&self) -> [PathBuf; 2] {
        [self.data_dir.join("pg"), self.elsewhere().join("pg")]
    }

    /// A folder that every user can pass, for a server that cannot get into the data folder.
    ///
    /// `/var/tmp` outlives a reboot; the name tells checkouts apart.
    fn elsewhere(&self) -> PathBuf {
        PathBuf::from(format!(
            "/var/tmp/sisu-kodo-pg-{:016x}",
            fnv1a(self.data_dir.as_os_str().as_bytes())
        ))
    }
}

/// Makes a folder that all may pass and only we may change, and refuses one that somebody else has put there.
fn make_passable(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user",
        ))
    }
}

/// FNV-1a: the name must be the same in every build, which std's hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn looking_creates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join(".data");
        assert!(Places::find(&data_dir).is_none());
        assert!(!data_dir.exists());
        Places::make(&data_dir).unwrap();
        assert!(Places::find(&data_dir).is_some());
    }
}
