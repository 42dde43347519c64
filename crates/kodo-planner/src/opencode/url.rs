//! The URL of an OpenCode that somebody else runs.

use std::fmt;

use reqwest::Url;

use crate::endpoint::{EndpointError, base_of};

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

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for OpenCodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}
