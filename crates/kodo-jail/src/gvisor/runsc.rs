//! Finds the operator's `runsc`.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How a binary of this machine begins.
const ELF: [u8; 4] = *b"\x7fELF";

/// Finds it by its path, or by its name in the folders of `search`.
///
/// # Errors
/// What is missing, or why the file cannot be used.
pub(crate) fn find(named: &Path, search: Option<&OsStr>) -> Result<PathBuf, String> {
    let place = if named.components().count() > 1 {
        named.to_owned()
    } else {
        let folders = std::env::split_paths(search.unwrap_or_default());
        let mut places = folders.map(|folder| folder.join(named));
        places
            .find(|place| place.is_file())
            .ok_or_else(|| format!("there is no program {} on PATH", named.display()))?
    };
    let at = |error: std::io::Error| format!("{}: {error}", place.display());
    let place = fs::canonicalize(&place).map_err(at)?;
    let mut begins = [0; ELF.len()];
    fs::File::open(&place)
        .and_then(|mut file| file.read_exact(&mut begins))
        .map_err(at)?;
    if begins != ELF {
        // It is started in a file tree without a shell.
        return Err(format!(
            "{}: this is not the program itself, but perhaps a script that starts it",
            place.display()
        ));
    }
    let mode = fs::metadata(&place).map_err(at)?.mode();
    if rustix::fs::access(&place, rustix::fs::Access::EXEC_OK).is_err() || mode & 0o111 == 0 {
        return Err(format!("{}: it is not executable", place.display()));
    }
    if rustix::process::geteuid().is_root() {
        // The process that executes it is an ordinary user by then.
        let closed = place.ancestors().find(|above| {
            let needed = if *above == place { 0o005 } else { 0o001 };
            fs::metadata(above).is_ok_and(|it| it.mode() & needed != needed)
        });
        if let Some(closed) = closed {
            return Err(format!(
                "{} is closed to others, and runsc runs as an ordinary user",
                closed.display()
            ));
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(folder: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let place = folder.join(name);
        fs::write(&place, content).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        place
    }

    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn a_name_is_looked_for_on_path_and_a_path_is_taken_as_it_is() {
        let (empty, full) = (open_folder(), open_folder());
        let place = put(full.path(), "runsc", b"\x7fELF...", 0o755);
        let place = fs::canonicalize(place).unwrap();
        let path = std::env::join_paths([empty.path(), full.path()]).unwrap();
        assert_eq!(find(Path::new("runsc"), Some(&path)), Ok(place.clone()));
        assert_eq!(find(&place, None), Ok(place.clone()));
        let none = find(Path::new("runsc"), Some(empty.path().as_os_str()));
        assert!(none.unwrap_err().contains("no program runsc on PATH"));
        assert!(find(Path::new("runsc"), None).is_err());
        let none = find(&empty.path().join("runsc"), Some(&path));
        assert!(none.unwrap_err().contains("No such file"));
    }

    #[test]
    fn what_is_not_the_program_is_none() {
        let folder = open_folder();
        for (name, content, mode, words) in [
            ("script", &b"#!/bin/sh\n"[..], 0o755, "a script"),
            ("short", b"x", 0o755, "fill whole buffer"),
            ("plain", b"\x7fELF", 0o644, "not executable"),
        ] {
            let place = put(folder.path(), name, content, mode);
            let reason = find(&place, None).unwrap_err();
            assert!(reason.contains(words), "{reason}");
            assert!(reason.contains(name), "{reason}");
        }
        assert!(find(folder.path(), None).is_err(), "a folder");
    }

    #[test]
    fn what_an_ordinary_user_could_not_run_is_refused_by_user_0() {
        let folder = open_folder();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        let place = put(&closed, "runsc", b"\x7fELF", 0o755);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let found = find(&place, None);
        if rustix::process::geteuid().is_root() {
            let reason = found.unwrap_err();
            assert!(reason.contains("closed is closed to others"), "{reason}");
        } else {
            assert!(found.is_ok());
        }
    }
}
