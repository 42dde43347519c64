//! Which versions of OpenCode are accepted.

/// The version that this planner was tested with.
pub const TESTED_VERSION: &str = "1.18.33";

/// Which versions are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionRule {
    /// This one.
    Exactly(String),
    /// Every version.
    Any,
}

impl VersionRule {
    /// Checks a version.
    ///
    /// # Errors
    /// The reason, with the setting that decides it.
    pub(crate) fn check(&self, version: &str) -> Result<(), String> {
        match self {
            Self::Any => Ok(()),
            Self::Exactly(wanted) if wanted == version => Ok(()),
            Self::Exactly(wanted) => Err(format!(
                "it is version {version}, and {wanted} is wanted (this kodo was tested with {TESTED_VERSION}); \
                 OC_OPENCODE_VERSION says which one is accepted, or any"
            )),
        }
    }
}
