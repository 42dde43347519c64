//! The one place of the binary that reads the environment. What a variable means is for its reader: settings.rs has the
//! table.

use std::ffi::OsString;

/// A variable as it is; `None` where it is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the binary that reads the environment"
)]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A variable that is text; `None` where it is not set, or is none.
pub(crate) fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}
