//! The configuration of a planner that asks through OpenCode.

use std::sync::Arc;
use std::time::Duration;

use crate::{Endpoint, OpenCodeUrl, Policy, Secret, VersionRule};

use super::launch::OpenCodeLauncher;

/// The configuration of an [`OpenCodePlanner`](super::OpenCodePlanner).
#[derive(Clone, Debug)]
pub struct OpenCodeConfig {
    /// The OpenCode.
    pub place: OpenCodePlace,
    /// The versions of it that are accepted.
    pub version: VersionRule,
    /// The model's name; for an OpenCode that somebody else runs, `provider/model` as they are called there.
    pub model: String,
    /// How long a plan may take, with all retries and repairs.
    pub deadline: Duration,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// What a plan may ask for.
    pub policy: Policy,
}

/// Which OpenCode is asked.
#[derive(Clone, Debug)]
pub enum OpenCodePlace {
    /// One that we start, and that can reach nothing but the model.
    Started {
        /// What starts it.
        launcher: Arc<dyn OpenCodeLauncher>,
        /// Where the model is.
        endpoint: Endpoint,
        /// The provider's key, if it wants one. OpenCode does not get it.
        secret: Option<Secret>,
        /// The first pause before a failed request is sent again.
        first_pause: Duration,
    },
    /// One that somebody else runs.
    Attached {
        /// Where it is.
        url: OpenCodeUrl,
        /// The user of its API.
        user: String,
        /// The password of that user, if there is one.
        password: Option<Secret>,
    },
}
