//! Creates a cluster, completely or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::binaries::Binaries;
use super::cluster::Cluster;
use super::command;
use super::identity::Identity;
use super::places::unusable;

/// Seconds on a good day; a minute on a machine under load with a slow disk.
const DEADLINE: Duration = Duration::from_secs(300);

/// Creates `cluster` with the superuser `user`, in a folder beside its place that is renamed at the end: an interrupted one
/// is never taken for a cluster. The caller holds the lock, so that what interrupted calls left can be removed.
///
/// # Errors
/// If `initdb` fails, or would cut the password off.
pub(super) async fn create(
    cluster: &Cluster,
    binaries: &Binaries,
    identity: Identity,
    user: &str,
    password: &str,
) -> anyhow::Result<()> {
    ensure!(
        !password.is_empty() && !password.contains(['\n', '\r', '\0']),
        "DB_PASSWORD must be one non-empty line to create a private cluster"
    );
    let folder = &cluster.folder;
    let parent = folder.parent().unwrap_or(folder);
    remove_leftovers(parent).await;
    set_aside(folder)?;
    let temporary = parent.join(format!("{}.init-{}", cluster.major, std::process::id()));
    let secret = parent.join(format!(".password-{}", std::process::id()));
    let created = async {
        write_secret(&secret, password, identity)?;
        let mut initdb = identity.command(&binaries.bin.join("initdb"));
        initdb
            // No locale and UTF8: such a cluster does not depend on the machine's libraries.
            .args(["--no-locale", "--encoding=UTF8"])
            .args(["--auth-host=scram-sha-256", "--auth-local=scram-sha-256"])
            .arg(format!("--username={user}"))
            .arg("--pwfile")
            .arg(&secret)
            .arg("--pgdata")
            .arg(&temporary);
        command::run(initdb, DEADLINE).await?;
        fs::rename(&temporary, folder).with_context(|| unusable(folder))
    };
    let created = created.await;
    let _ = fs::remove_file(&secret);
    if created.is_err() {
        let _ = tokio::fs::remove_dir_all(&temporary).await;
    }
    created
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, password: &str, identity: Identity) -> anyhow::Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(password.as_bytes()));
    written.with_context(|| unusable(path))?;
    identity.give(path).with_context(|| unusable(path))
}

/// Removes what interrupted calls left: half-made clusters, and passwords.
async fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.contains(".init-") {
            let _ = tokio::fs::remove_dir_all(entry.path()).await;
        } else if name.starts_with(".password-") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Moves away a folder in the cluster's place that is no complete cluster. It is not deleted, because it may hold data.
fn set_aside(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let now = kodo_contract::now().unix_timestamp();
    let aside = folder.with_extension(format!("incomplete-{now}"));
    tracing::warn!(
        "{} is no complete cluster: moved to {}",
        folder.display(),
        aside.display()
    );
    fs::rename(folder, &aside).with_context(|| unusable(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_password_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_secret(&path, "secret", Identity::Caller).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_password_that_initdb_would_cut_off_is_refused_and_nothing_outlives_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(folder.path(), 15);
        fs::create_dir(folder.path().join("pg")).unwrap();
        let binaries = Binaries {
            bin: "/nowhere".into(),
            version: "15".to_owned(),
            major: 15,
        };
        for (password, said) in [
            ("", "DB_PASSWORD"),
            ("two\nlines", "DB_PASSWORD"),
            ("good", "initdb"),
        ] {
            let created = create(&cluster, &binaries, Identity::Caller, "postgres", password);
            let error = created.await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            let left = fs::read_dir(folder.path().join("pg")).unwrap();
            assert_eq!(left.count(), 0);
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
        let left = fs::read_dir(folder.path()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.path()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(
            fs::read_to_string(left[0].join("precious")).unwrap(),
            "data"
        );
    }
}
