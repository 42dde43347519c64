//! Where the program is.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::environment;
use crate::settings::DataFolder;

/// Where `oc:opencode:install` puts it, below the data folder.
const INSTALLED: &str = "opencode/opencode";

/// What a program of this machine's begins with.
const MAGIC: &[u8] = b"\x7fELF";

/// The program that was named, else the one on the path, else the one that a task has installed.
///
/// # Errors
/// Where there is none, or where it is none: with what to do about it.
pub(crate) fn find(named: Option<&Path>, data_dir: &DataFolder) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        let place = || format!("OC_OPENCODE_BIN={}", named.display());
        let program = named.canonicalize().with_context(place)?;
        ensure!(
            is_native(&program),
            "{} is no program of this machine's: npm's own `opencode` may be a script; name the program that it starts",
            place()
        );
        return Ok(program);
    }
    let path = environment::variable("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("opencode"));
    let found = on_path
        .chain([data_dir.path().join(INSTALLED)])
        .filter_map(|candidate| candidate.canonicalize().ok())
        .find(|candidate| is_native(candidate));
    let Some(found) = found else {
        bail!(
            "OC_PROVIDER=opencode needs OpenCode, and there is none on the path or in {}: \
             `bin/mise run oc:opencode:install` installs it there, OC_OPENCODE_BIN says where it is, and \
             OC_OPENCODE_URL where one runs",
            data_dir.path().display()
        );
    };
    Ok(found)
}

/// Whether it can be given to a jail, which has neither npm nor node: a file that the kernel runs by itself.
fn is_native(program: &Path) -> bool {
    let mut beginning = [0; 4];
    let mut read = || File::open(program)?.read_exact(&mut beginning);
    read().is_ok() && beginning == MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, Settings};

    #[test]
    fn a_program_that_is_named_and_is_none_is_refused_with_its_name() {
        let settings = Settings::load(&Given::default()).unwrap();
        let find = |named: &str| find(Some(Path::new(named)), &settings.data_dir);
        let missing = find("/nowhere/opencode").unwrap_err();
        assert!(
            missing.to_string().contains("OC_OPENCODE_BIN=/nowhere"),
            "{missing:#}"
        );
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("opencode");
        std::fs::write(&script, "#!/usr/bin/env node\n").unwrap();
        let script = find(script.to_str().unwrap()).unwrap_err().to_string();
        assert!(script.contains("no program of this machine's"), "{script}");
    }
}
