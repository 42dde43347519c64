//! Making a cluster: all of it or nothing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::binaries::Binaries;
use crate::cluster::Cluster;
use crate::command;
use crate::error::DevDbError;
use crate::identity::Identity;

/// Seconds on a good day; a minute on a machine under load with a slow disk.
const DEADLINE: Duration = Duration::from_secs(300);

/// Creates `cluster` with the superuser `user`.
///
/// In a folder beside its place and renamed at the end: one that was interrupted is never taken for a cluster.
/// The caller holds the lock, so that what others left half-way can be removed.
pub(crate) async fn create(
    cluster: &Cluster,
    binaries: &Binaries,
    identity: Identity,
    user: &str,
    password: &str,
) -> Result<(), DevDbError> {
    if password.is_empty() || password.contains(['\n', '\r', '\0']) {
        return Err(DevDbError::Password);
    }
    let folder = cluster.folder();
    let parent = folder.parent().unwrap_or(folder);
    remove_leftovers(parent).await;
    set_aside(folder)?;

    let temporary = parent.join(format!("{}.init-{}", cluster.major(), std::process::id()));
    let secret = Secret::write(parent, password, identity)?;
    let mut initdb = identity.command(&binaries.program("initdb"));
    initdb
        // No locale and UTF8: a cluster that does not depend on the machine's libraries opens with any build of its version.
        .args(["--no-locale", "--encoding=UTF8"])
        .args(["--auth-host=scram-sha-256", "--auth-local=scram-sha-256"])
        .arg(format!("--username={user}"))
        .arg("--pwfile")
        .arg(&secret.path)
        .arg("--pgdata")
        .arg(&temporary);
    let finished = command::run(initdb, DEADLINE).await;
    drop(secret);
    let failed = match finished {
        Ok(finished) if finished.success() => None,
        Ok(finished) => Some(DevDbError::InitDb {
            output: finished.complaint(),
        }),
        Err(error) => Some(error),
    };
    if let Some(error) = failed {
        let _ = tokio::fs::remove_dir_all(&temporary).await;
        return Err(error);
    }
    fs::rename(&temporary, folder).map_err(DevDbError::at(folder))
}

/// Removes what interrupted calls left: half-made clusters, and passwords.
async fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.contains(".init-") {
            let _ = tokio::fs::remove_dir_all(entry.path()).await;
        } else if name.starts_with(".password-") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Moves a folder away that is in the cluster's place and is none. Not ours to delete: it may hold data.
fn set_aside(folder: &Path) -> Result<(), DevDbError> {
    if !folder.exists() {
        return Ok(());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "names a folder for people, and this crate knows none of the others"
    )]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let aside = folder.with_extension(format!("incomplete-{now}"));
    tracing::warn!(
        "{} is no complete cluster: moved to {}",
        folder.display(),
        aside.display()
    );
    fs::rename(folder, &aside).map_err(DevDbError::at(folder))
}

/// A file with the password that only its reader may read, gone when this is dropped.
struct Secret {
    path: PathBuf,
}

impl Secret {
    fn write(parent: &Path, password: &str, identity: Identity) -> Result<Self, DevDbError> {
        let path = parent.join(format!(".password-{}", std::process::id()));
        let mut file: File = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(DevDbError::at(&path))?;
        let secret = Self { path };
        file.write_all(password.as_bytes())
            .map_err(DevDbError::at(&secret.path))?;
        identity.give(&secret.path)?;
        Ok(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_password_file_is_private_and_does_not_outlive_its_use() {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::write(folder.path(), "secret", Identity::Caller).unwrap();
        let path = secret.path.clone();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(secret);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_password_that_initdb_would_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(folder.path(), 15);
        let binaries = Binaries {
            bin: "/nowhere".into(),
            version: "15".to_owned(),
            major: 15,
        };
        for password in ["", "two\nlines"] {
            let error = create(&cluster, &binaries, Identity::Caller, "postgres", password)
                .await
                .unwrap_err();
            assert!(matches!(error, DevDbError::Password));
        }
    }

    #[tokio::test]
    async fn what_an_interrupted_call_left_is_removed_and_what_is_not_ours_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("15.init-77/base")).unwrap();
        fs::write(at(".password-77"), "secret").unwrap();
        fs::create_dir_all(at("15")).unwrap();
        fs::write(at("15/precious"), "data").unwrap();
        remove_leftovers(folder.path()).await;
        set_aside(&at("15")).unwrap();
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(
            fs::read_to_string(names[0].join("precious")).unwrap(),
            "data"
        );
    }
}
