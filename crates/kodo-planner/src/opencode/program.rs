//! Finds the program `opencode`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where the task `oc:opencode:install` puts it, below the data folder.
const INSTALLED: &str = "opencode/opencode";

/// The first bytes of a program that the kernel runs by itself.
const MAGIC: &[u8] = b"\x7fELF";

/// Why there is no program to start. Each text says what to do.
#[derive(Debug, Error)]
pub enum OpenCodeMissing {
    /// The named file cannot be read.
    #[error("OC_OPENCODE_BIN={}: {reason}", .named.display())]
    Unreadable {
        /// The file.
        named: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The named file is not a native program. A jail has neither node nor a shell to run a script with.
    #[error(
        "OC_OPENCODE_BIN={} is not a native program of this machine: npm's own `opencode` may be a script; name the \
         program that it starts", .0.display()
    )]
    Script(PathBuf),
    /// None was named, and none is where it is looked for.
    #[error(
        "OC_PROVIDER=opencode needs OpenCode, and there is none on the path or in {}: \
         `bin/mise run oc:opencode:install` installs it there, OC_OPENCODE_BIN says where it is, and OC_OPENCODE_URL \
         where one runs", .0.display()
    )]
    NotFound(PathBuf),
}

/// Returns the named program, otherwise the one on `path` (the variable `PATH`), otherwise the installed one.
///
/// # Errors
/// [`OpenCodeMissing`].
pub fn find_opencode(
    named: Option<&Path>,
    path: &OsStr,
    data_dir: &Path,
) -> Result<PathBuf, OpenCodeMissing> {
    if let Some(named) = named {
        let program = named
            .canonicalize()
            .map_err(|reason| OpenCodeMissing::Unreadable {
                named: named.to_owned(),
                reason,
            })?;
        return match is_native(&program) {
            true => Ok(program),
            false => Err(OpenCodeMissing::Script(named.to_owned())),
        };
    }
    std::env::split_paths(path)
        .map(|folder| folder.join("opencode"))
        .chain([data_dir.join(INSTALLED)])
        .filter_map(|candidate| candidate.canonicalize().ok())
        .find(|candidate| is_native(candidate))
        .ok_or_else(|| OpenCodeMissing::NotFound(data_dir.to_owned()))
}

fn is_native(program: &Path) -> bool {
    let mut beginning = [0; 4];
    let mut read = || File::open(program)?.read_exact(&mut beginning);
    read().is_ok() && beginning == MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_that_is_no_program_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let find = |named: &Path| find_opencode(Some(named), OsStr::new(""), folder.path());
        let missing = find(Path::new("/nowhere/opencode"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.starts_with("OC_OPENCODE_BIN=/nowhere/opencode: "),
            "{missing}"
        );
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/usr/bin/env node\n").unwrap();
        let refused = find(&script).unwrap_err().to_string();
        assert!(refused.contains("not a native program"), "{refused}");
    }

    #[test]
    fn a_program_is_looked_for_on_the_path_and_then_in_the_data_folder() {
        let (path, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = || find_opencode(None, path.path().as_os_str(), data.path());
        let none = find().unwrap_err().to_string();
        assert!(none.contains("oc:opencode:install"), "{none}");
        let program = |folder: &Path, name: &str| {
            let program = folder.join(name);
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::write(&program, b"\x7fELF and more").unwrap();
            program.canonicalize().unwrap()
        };
        let installed = program(data.path(), INSTALLED);
        std::fs::write(path.path().join("opencode"), "#!/bin/sh\n").unwrap();
        assert_eq!(find().unwrap(), installed);
        let on_path = program(path.path(), "opencode");
        assert_eq!(find().unwrap(), on_path);
    }
}
