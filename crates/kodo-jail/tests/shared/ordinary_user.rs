//! Running a test suite a second time as somebody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `nobody`, on every Linux machine.
const NOBODY: u32 = 65_534;
/// Where the copy of the helper is, for the suite that runs as somebody else.
const HELPER: &str = "KODO_JAIL_PROBE";
/// Where it can make folders.
const FOLDER: &str = "KODO_JAIL_FOLDER";

/// The program that is the helper.
#[expect(
    clippy::disallowed_methods,
    reason = "what the suite says to itself as somebody else"
)]
pub fn helper() -> PathBuf {
    std::env::var_os(HELPER).map_or_else(
        // What the suite is one of.
        || PathBuf::from(super::PROBE),
        PathBuf::from,
    )
}

/// A folder in which this user can make others that every user can reach, and which no jail has.
#[expect(
    clippy::disallowed_methods,
    reason = "what the suite says to itself as somebody else"
)]
pub fn folder() -> PathBuf {
    match std::env::var_os(FOLDER) {
        Some(folder) => folder.into(),
        None if rustix::process::geteuid().is_root() => "/opt".into(),
        None => env!("CARGO_TARGET_TMPDIR").into(),
    }
}

/// Copies a program that is then executed. By a process of its own: a descriptor that is open for writing here would be
/// inherited by what other tests fork meanwhile, and nobody can execute a file that somebody can write to.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status();
    assert!(copied.unwrap().success(), "cp {from:?} {to:?}");
}

/// Runs every test of this program but one as `nobody`, from copies that `nobody` can read. Where the tests
/// are run by an ordinary user anyway, they have all run as one already.
pub fn run_this_suite(but: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(folder.path());
    let copy = |from: PathBuf, name: &str| {
        let to = folder.path().join(name);
        copy_program(&from, &to);
        open(&to);
        to
    };
    let place = tempfile::tempdir_in(self::folder()).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let suite = copy(std::env::current_exe().unwrap(), "suite");
    let helper = copy(helper(), "helper");
    let output = Command::new(suite)
        .args(["--skip", but, "--test-threads", "2"])
        .env(HELPER, helper)
        .env(FOLDER, place.path())
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("test result: ok."), "{text}");
    assert!(!text.contains(" 0 passed"), "{text}");
}
