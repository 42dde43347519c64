//! The model that the planner asks, as the settings have it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kodo_planner::{Endpoint, LiveConfig, OpenCodeUrl, Policy, Secret, VersionRule};
use kodo_sandbox::Limits;

use super::{Asker, PlannerFlags};
use crate::settings::given::{Given, Refusal};
use crate::tools::SandboxTools;

/// The first pause before a provider that failed is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Who asks the model.
#[derive(Debug, Clone)]
pub(crate) enum LiveSettings {
    /// This process, by the model's API.
    OpenAi(LiveConfig),
    /// OpenCode.
    OpenCode(OpenCodeSettings),
}

/// An OpenCode, and how it is asked.
#[cfg_attr(
    not(feature = "opencode"),
    expect(
        dead_code,
        reason = "checked in every build, used in one with OpenCode"
    )
)]
#[derive(Debug, Clone)]
pub(crate) struct OpenCodeSettings {
    /// Which one.
    pub(crate) setup: OpenCodeSetup,
    /// Which version will do.
    pub(crate) version: VersionRule,
    /// As of [`LiveConfig`], like the following.
    pub(crate) model: String,
    pub(crate) deadline: Duration,
    pub(crate) max_tokens: u32,
    pub(crate) policy: Policy,
}

/// Which OpenCode.
#[cfg_attr(
    not(feature = "opencode"),
    expect(
        dead_code,
        reason = "checked in every build, used in one with OpenCode"
    )
)]
#[derive(Debug, Clone)]
pub(crate) enum OpenCodeSetup {
    /// One of our own.
    Start {
        /// The program, if one is named.
        program: Option<PathBuf>,
        /// Whether in the jail.
        jail: bool,
        /// As of [`LiveConfig`], like the following.
        endpoint: Endpoint,
        secret: Option<Secret>,
        first_pause: Duration,
    },
    /// One that somebody else runs.
    Attach {
        /// Where it is.
        url: OpenCodeUrl,
        /// The user of its API.
        user: String,
        /// The password.
        password: Option<Secret>,
    },
}

impl LiveSettings {
    /// Who asks which model, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::OpenAi(live) => format!("model {} at {}", live.model, live.endpoint),
            Self::OpenCode(opencode) => match &opencode.setup {
                OpenCodeSetup::Start { endpoint, jail, .. } => format!(
                    "an OpenCode {}, which asks model {} at {endpoint}",
                    if *jail {
                        "in the jail"
                    } else {
                        "outside of the jail"
                    },
                    opencode.model
                ),
                OpenCodeSetup::Attach { url, .. } => {
                    format!("the OpenCode at {url}, which asks model {}", opencode.model)
                }
            },
        }
    }
}

impl PlannerFlags {
    /// Whether an OpenCode that somebody else runs is used.
    pub(super) fn attaches(&self) -> bool {
        self.oc_provider == Asker::OpenCode && self.oc_opencode_url.is_some()
    }

    /// The model, if its name and its place are given.
    pub(super) fn model(
        self,
        most: Limits,
        given: &Given,
    ) -> Result<Option<LiveSettings>, Refusal> {
        let endpoint = self.oc_base_url.as_deref();
        let endpoint = endpoint.map(|url| Endpoint::parse(url, self.oc_allow_http));
        let endpoint = endpoint
            .transpose()
            .map_err(|error| given.refuse("OC_BASE_URL", error))?;
        let secret = given.secret(
            "OC_API_KEY",
            self.oc_api_key.as_ref(),
            self.oc_api_key_file.as_ref(),
            "a key",
        )?;
        let secret = secret.map(Secret::new);
        let attached = self.attached(given)?;
        let policy = Policy {
            allowed_tools: self.oc_allowed_tools,
            allowed_connectors: self.oc_allowed_connectors,
            max_steps: self.oc_max_steps,
            max_bytes: self.oc_max_plan_bytes,
            tools: Arc::new(SandboxTools { most }),
        };
        let Some(model) = self.oc_model else {
            return Ok(None);
        };
        let setup = match (self.oc_provider, attached, endpoint) {
            (Asker::OpenCode, Some(attached), _) => {
                let parts = model.split_once('/');
                if !parts.is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()) {
                    let accepted = "PROVIDER/MODEL, as the OpenCode at OC_OPENCODE_URL names them,";
                    return Err(given.refuse("OC_MODEL", accepted));
                }
                attached
            }
            (Asker::OpenCode, None, Some(endpoint)) => OpenCodeSetup::Start {
                program: self.oc_opencode_bin,
                jail: self.oc_opencode_jail,
                endpoint,
                secret,
                first_pause: FIRST_PAUSE,
            },
            (Asker::OpenAi, _, Some(endpoint)) => {
                return Ok(Some(LiveSettings::OpenAi(LiveConfig {
                    endpoint,
                    model,
                    secret,
                    deadline: self.oc_deadline,
                    max_tokens: self.oc_max_tokens,
                    stream: self.oc_stream,
                    first_pause: FIRST_PAUSE,
                    policy,
                })));
            }
            (_, _, None) => return Ok(None),
        };
        Ok(Some(LiveSettings::OpenCode(OpenCodeSettings {
            setup,
            version: self.oc_opencode_version,
            model,
            deadline: self.oc_deadline,
            max_tokens: self.oc_max_tokens,
            policy,
        })))
    }

    /// The OpenCode that somebody else runs, if `OC_OPENCODE_URL` names one.
    fn attached(&self, given: &Given) -> Result<Option<OpenCodeSetup>, Refusal> {
        let password = given.secret(
            "OC_OPENCODE_PASSWORD",
            self.oc_opencode_password.as_ref(),
            self.oc_opencode_password_file.as_ref(),
            "a password",
        )?;
        let Some(url) = &self.oc_opencode_url else {
            return Ok(None);
        };
        let url = OpenCodeUrl::parse(url, self.oc_allow_http)
            .map_err(|error| given.refuse("OC_OPENCODE_URL", error))?;
        Ok(Some(OpenCodeSetup::Attach {
            url,
            user: self.oc_opencode_username.clone(),
            password: password.map(Secret::new),
        }))
    }
}
