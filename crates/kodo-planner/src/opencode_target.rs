//! Which OpenCode is accepted: its version, and its URL if somebody else runs it.
//!
//! Part of every build, so that the settings are checked in one without the feature `opencode` as well.

use std::fmt;

use reqwest::Url;

use crate::endpoint::{EndpointError, base_of};

/// The version of OpenCode that this planner was tested with.
pub const TESTED_VERSION: &str = "1.18.33";

/// Which versions of OpenCode are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionRule {
    /// This one.
    Exactly(String),
    /// Every version.
    Any,
}

#[cfg(feature = "opencode")]
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

/// The URL of an OpenCode that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCodeUrl(Url);

impl OpenCodeUrl {
    /// Reads the URL of an `opencode serve`.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn parse(url: &str, allow_http: bool) -> Result<Self, EndpointError> {
        base_of(url, allow_http).map(Self)
    }

    #[cfg(feature = "opencode")]
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for OpenCodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}
