//! The one place of the binary that reads the environment, apart from clap, which reads the settings.

use std::ffi::OsString;

/// A variable as it is; `None` where it is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the binary that reads the environment"
)]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
