//! Where everything lies: clusters, their lock and their logs, fetched binaries.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::identity::Identity;

/// Longer than anything that is done under the lock: a download, an `initdb` and a start on a slow machine.
const LOCKED: Duration = Duration::from_secs(15 * 60);

/// For errors of files in the data folder.
pub(super) fn unusable(path: &Path) -> String {
    format!(
        "{}: the data folder must be writable for this user",
        path.display()
    )
}

/// The folders of one data folder.
pub(super) struct Places {
    /// Absolute: servers and their pid files name their folder so.
    data_dir: PathBuf,
}

impl Places {
    /// The places of a data folder, if there are any.
    pub(super) fn find(data_dir: &Path) -> Option<Self> {
        let data_dir = data_dir.canonicalize().ok()?;
        data_dir.join("pg").is_dir().then_some(Self { data_dir })
    }

    /// The places of a data folder, created if they are missing.
    ///
    /// # Errors
    /// If they cannot be created.
    pub(super) fn create(data_dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data_dir.join("pg")).with_context(|| unusable(data_dir))?;
        let data_dir = data_dir.canonicalize()?;
        Ok(Self { data_dir })
    }

    /// Waits for the lock of whoever brings a server up or down. Held until it is dropped or the process ends; child
    /// processes do not inherit it, because std opens files to be closed on exec.
    ///
    /// # Errors
    /// If another process holds it for too long.
    pub(super) async fn lock(&self) -> anyhow::Result<File> {
        lock(&self.data_dir.join("pg/.lock"), LOCKED).await
    }

    /// Exists while a container runs that `up` started; holds the path of its compose file.
    pub(super) fn compose_marker(&self) -> PathBuf {
        self.data_dir.join("pg/.compose")
    }

    /// The folder for the clusters and fetched binaries of servers that run as `identity`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(super) fn base(&self, identity: Identity) -> anyhow::Result<PathBuf> {
        let Identity::Other(_) = identity else {
            return Ok(self.data_dir.clone());
        };
        let elsewhere = self.elsewhere();
        create_passable(&elsewhere).with_context(|| unusable(&elsewhere))?;
        let clusters = elsewhere.join("pg");
        fs::create_dir_all(&clusters).with_context(|| unusable(&clusters))?;
        identity
            .give(&clusters)
            .with_context(|| unusable(&clusters))?;
        Ok(elsewhere)
    }

    /// The folders that clusters lie in, whether they exist or not.
    pub(super) fn cluster_folders(&self) -> [PathBuf; 2] {
        [self.data_dir.join("pg"), self.elsewhere().join("pg")]
    }

    /// A folder that every user can pass, for a server that cannot get into the data folder. `/var/tmp` outlives a reboot;
    /// the name tells checkouts apart.
    fn elsewhere(&self) -> PathBuf {
        let hash = fnv1a(self.data_dir.as_os_str().as_bytes());
        PathBuf::from(format!("/var/tmp/sisu-kodo-pg-{hash:016x}"))
    }
}

async fn lock(path: &Path, deadline: Duration) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.with_context(|| unusable(path))?;
    let end = Instant::now() + deadline;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| unusable(path)),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => bail!(
                "another process has held {} for {} s: wait for it or end it, then try again",
                path.display(),
                deadline.as_secs()
            ),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    tracing::info!(
                        "waiting for another process that is bringing the database up or down"
                    );
                    told = true;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Creates a folder that all may pass and only we may change; refuses one that belongs to somebody else.
fn create_passable(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let error = "it belongs to another user";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
}

/// FNV-1a, because the name must be the same in every build, which std's hashers do not promise.
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
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn looking_creates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join(".data");
        assert!(Places::find(&data_dir).is_none() && !data_dir.exists());
        Places::create(&data_dir).unwrap();
        assert!(Places::find(&data_dir).is_some());
    }

    #[tokio::test]
    async fn a_second_one_waits_for_the_lock_and_gives_up_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let first = lock(&path, LOCKED).await.unwrap();
        let error = lock(&path, Duration::from_millis(120)).await.unwrap_err();
        assert!(error.to_string().contains(".lock"), "{error}");
        drop(first);
        lock(&path, Duration::ZERO).await.unwrap();
    }
}
