//! The folder of goldens in the repository.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use kodo_dev::harness::{Goldens, Mode};

/// Whether diffs are for a terminal. A test runner that captures a test's output hides the terminal; whoever started
/// it says so by `CLICOLOR_FORCE`.
#[expect(
    clippy::disallowed_methods,
    reason = "what the caller of a test sets for it"
)]
pub fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    !set("NO_COLOR") && (set("CLICOLOR_FORCE") || std::io::stderr().is_terminal())
}

/// The folder in the repository. It is only written to where the environment names a folder for reports, as
/// `test:golden:refresh` does.
#[expect(
    clippy::disallowed_methods,
    reason = "what the caller of a test sets for it"
)]
pub fn goldens() -> Goldens {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let reports = std::env::var_os("KODO_GOLDEN_REFRESH").map(PathBuf::from);
    let mode = reports.map_or(Mode::Compare, |reports| Mode::Refresh { reports });
    Goldens::new(
        root.expect("the repository").join("tests/golden"),
        mode,
        colour(),
    )
}
