//! The planner's settings (OC).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use kodo_planner::{Endpoint, EndpointError, LiveConfig, OpenCodeUrl, Policy, Secret, VersionRule};

use super::{Flags, Raw, sandbox, secret};
use crate::tools::SandboxTools;

/// The first pause before a provider that failed is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The provider that asks through OpenCode.
const OPENCODE: &str = "opencode";

/// What a list says that has nothing in it: an empty variable is one that is not set.
const NONE: &str = "none";

/// Where plans come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlannerMode {
    /// From fixtures; no socket is opened.
    Replay,
    /// From a model, and kept as fixtures.
    Record,
    /// From a model.
    Live,
}

/// The planner's settings.
#[derive(Debug, Clone)]
pub(crate) struct PlannerSettings {
    /// Where plans come from.
    pub(crate) mode: PlannerMode,
    /// Folder of fixtures, if there is one.
    pub(crate) fixtures_dir: Option<PathBuf>,
    /// The model, where one is configured; always, unless the mode is replay.
    pub(crate) live: Option<LiveSettings>,
}

/// Who asks the model.
#[derive(Debug, Clone)]
pub(crate) enum LiveSettings {
    /// This process, by the model's API.
    OpenAi(LiveConfig),
    /// OpenCode.
    OpenCode(OpenCodeSettings),
}

/// What is to be known about an OpenCode.
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
#[derive(Debug, Clone)]
pub(crate) enum OpenCodeSetup {
    /// One of our own.
    Start {
        /// The program, where one is named.
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

impl PlannerSettings {
    /// Reads flags and environment. Every value that is given is checked, in every mode.
    pub(super) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let mode = flags.oc_mode();
        mode.one_of(&["replay", "record", "live"])?;
        let settings = Self {
            mode: match mode.value.as_str() {
                "live" => PlannerMode::Live,
                "record" => PlannerMode::Record,
                _ => PlannerMode::Replay,
            },
            fixtures_dir: fixtures_dir(flags)?,
            live: live(flags)?,
        };
        if settings.mode == PlannerMode::Replay {
            return Ok(settings);
        }
        let mode = format!("{}={}", mode.name(), mode.value);
        ensure!(
            flags.oc_base_url().given || attaches(flags),
            "{mode} needs a model: set OC_BASE_URL to its OpenAI-compatible API, such as http://127.0.0.1:11434/v1, \
             and OC_MODEL to its name there"
        );
        ensure!(
            flags.oc_model().given,
            "{mode} needs to know which model: set OC_MODEL to its name at OC_BASE_URL"
        );
        ensure!(
            settings.mode != PlannerMode::Record || settings.fixtures_dir.is_some(),
            "{mode} needs a folder for what it records: set OC_FIXTURES_DIR to an existing one"
        );
        Ok(settings)
    }

    /// The model's configuration, for commands that ask it whatever the mode is.
    ///
    /// # Errors
    /// What to set.
    pub(crate) fn model(&self) -> anyhow::Result<LiveSettings> {
        let Some(live) = &self.live else {
            bail!(
                "no model is configured: set OC_BASE_URL to its OpenAI-compatible API, such as \
                 http://127.0.0.1:11434/v1, and OC_MODEL to its name there"
            );
        };
        Ok(live.clone())
    }

    /// The folder of fixtures, for commands that work on it.
    ///
    /// # Errors
    /// What to set.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        let Some(dir) = &self.fixtures_dir else {
            let here = std::env::current_dir().unwrap_or_default();
            bail!(
                "there is no folder of fixtures at {}: set OC_FIXTURES_DIR (or --oc-fixtures-dir) to one",
                here.join("fixtures/oc").display()
            );
        };
        Ok(dir.clone())
    }
}

/// Whether an OpenCode that somebody else runs is to be used.
fn attaches(flags: &Flags) -> bool {
    flags.oc_provider().value == OPENCODE && flags.oc_opencode_url().given
}

/// The model, where both of what names it are given.
fn live(flags: &Flags) -> anyhow::Result<Option<LiveSettings>> {
    let provider = flags.oc_provider();
    provider.one_of(&["openai", OPENCODE])?;
    let allow_http = flag(&flags.oc_allow_http())?;
    let base_url = flags.oc_base_url();
    let endpoint = match base_url.given {
        true => Some(url(&base_url, |url| Endpoint::parse(url, allow_http))?),
        false => None,
    };
    let key = secret(&flags.oc_api_key(), &flags.oc_api_key_file(), "a key")?;
    let stream = flag(&flags.oc_stream())?;
    let deadline = Duration::from_millis(flags.oc_deadline_ms().number(1, u32::MAX)?.into());
    let max_tokens = flags.oc_max_tokens().number(1, u32::MAX)?;
    let policy = Policy {
        allowed_tools: list(&flags.oc_allowed_tools())?,
        allowed_connectors: list(&flags.oc_allowed_connectors())?,
        // The plan's schema has no room for more.
        max_steps: flags.oc_max_steps().number(1, 256)?,
        max_bytes: flags.oc_max_plan_bytes().number(1024, 4 << 20)?,
        tools: Arc::new(SandboxTools {
            most: sandbox::most(flags)?,
        }),
    };
    let version = version(&flags.oc_opencode_version())?;
    let program = flags.oc_opencode_bin();
    let program = program.given.then(|| PathBuf::from(program.value));
    let jail = flag(&flags.oc_opencode_jail())?;
    let attached = attached(flags, allow_http)?;
    let model = flags.oc_model();
    if !model.given {
        return Ok(None);
    }
    if provider.value == OPENCODE {
        let model = model.filled("the name of a model")?;
        let setup = match (attached, endpoint) {
            (Some(attached), _) => {
                ensure!(
                    model
                        .split_once('/')
                        .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
                    "OC_MODEL={model} is not valid: PROVIDER/MODEL, as the OpenCode at OC_OPENCODE_URL names them, \
                     is accepted"
                );
                attached
            }
            (None, Some(endpoint)) => OpenCodeSetup::Start {
                program,
                jail,
                endpoint,
                secret: key.map(Secret::new),
                first_pause: FIRST_PAUSE,
            },
            (None, None) => return Ok(None),
        };
        return Ok(Some(LiveSettings::OpenCode(OpenCodeSettings {
            setup,
            version,
            model,
            deadline,
            max_tokens,
            policy,
        })));
    }
    let Some(endpoint) = endpoint else {
        return Ok(None);
    };
    Ok(Some(LiveSettings::OpenAi(LiveConfig {
        endpoint,
        model: model.filled("the name of a model")?,
        secret: key.map(Secret::new),
        deadline,
        max_tokens,
        stream,
        first_pause: FIRST_PAUSE,
        policy,
    })))
}

/// The OpenCode that somebody else runs, if one is named.
fn attached(flags: &Flags, allow_http: bool) -> anyhow::Result<Option<OpenCodeSetup>> {
    let password = secret(
        &flags.oc_opencode_password(),
        &flags.oc_opencode_password_file(),
        "a password",
    )?;
    let user = flags.oc_opencode_username();
    if user.value.contains(':') {
        return user.refuse("a name without a colon");
    }
    let place = flags.oc_opencode_url();
    if !place.given {
        return Ok(None);
    }
    Ok(Some(OpenCodeSetup::Attach {
        url: url(&place, |url| OpenCodeUrl::parse(url, allow_http))?,
        user: user.filled("a name")?,
        password: password.map(Secret::new),
    }))
}

fn version(raw: &Raw) -> anyhow::Result<VersionRule> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    match raw.value.as_str() {
        "any" => Ok(VersionRule::Any),
        version
            if version.starts_with(|it: char| it.is_ascii_digit()) && version.bytes().all(good) =>
        {
            Ok(VersionRule::Exactly(version.to_owned()))
        }
        _ => raw.refuse("a version such as 1.18.33, or any,"),
    }
}

fn url<T>(raw: &Raw, parse: impl Fn(&str) -> Result<T, EndpointError>) -> anyhow::Result<T> {
    // A password in the URL is not to be shown, and that there is one is why the URL is refused.
    let shown = match raw.value.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => raw.value.clone(),
    };
    parse(&raw.value).map_err(|error| {
        anyhow::anyhow!("{}={shown} is not valid: {error} is accepted", raw.name())
    })
}

fn flag(raw: &Raw) -> anyhow::Result<bool> {
    raw.parse("true or false")
}

/// Names by commas.
fn list(raw: &Raw) -> anyhow::Result<Vec<String>> {
    if raw.value == NONE {
        return Ok(Vec::new());
    }
    let names: Vec<String> = raw
        .value
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect();
    let good = |name: &String| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && !name[..name.len() - 1].contains('*')
    };
    if !names.iter().all(good) {
        return raw.refuse("names by commas, each with a * at its end or without one, or none");
    }
    Ok(names)
}

/// The folder that was named, or the repository's where that is the current one.
fn fixtures_dir(flags: &Flags) -> anyhow::Result<Option<PathBuf>> {
    let raw = flags.oc_fixtures_dir();
    if raw.given {
        let dir = PathBuf::from(&raw.value);
        ensure!(
            dir.is_dir(),
            "{}={} is not valid: an existing folder is accepted",
            raw.name(),
            raw.value
        );
        return Ok(Some(dir));
    }
    let here = PathBuf::from("fixtures/oc");
    Ok(here.is_dir().then_some(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(change: impl FnOnce(&mut Flags)) -> Result<PlannerSettings, String> {
        let mut flags = Flags::default();
        change(&mut flags);
        PlannerSettings::load(&flags).map_err(|error| error.to_string())
    }

    fn live(change: impl FnOnce(&mut Flags)) -> Result<PlannerSettings, String> {
        load(|flags| {
            flags.oc_mode = Some("live".to_owned());
            flags.oc_base_url = Some("http://127.0.0.1:1".to_owned());
            flags.oc_model = Some("m".to_owned());
            change(flags);
        })
    }

    #[test]
    fn live_needs_to_know_where_and_which_and_says_what_to_set() {
        assert!(live(|_| {}).is_ok());
        let nowhere = live(|flags| flags.oc_base_url = None).unwrap_err();
        assert!(
            nowhere.starts_with("--oc-mode=live needs a model: set OC_BASE_URL"),
            "{nowhere}"
        );
        let nobody = live(|flags| flags.oc_model = None).unwrap_err();
        assert!(nobody.contains("set OC_MODEL"), "{nobody}");
        // Replay needs neither, and takes them for the commands that ask a model.
        assert!(load(|_| {}).unwrap().live.is_none());
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        let refused = live(|flags| flags.oc_base_url = Some("https://me:hush@example.com".into()));
        let refused = refused.unwrap_err();
        assert!(
            refused.contains("without user name") && !refused.contains("hush"),
            "{refused}"
        );
    }

    #[test]
    fn a_key_is_in_no_debug_output() {
        let settings = live(|flags| flags.oc_api_key = Some("sk-canary-0123456789".into()));
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("[redacted]") && !shown.contains("canary"),
            "{shown}"
        );
    }

    #[test]
    fn lists_of_names_are_read_and_what_is_none_is_refused() {
        let tools = |text: &str| {
            let settings = live(|flags| flags.oc_allowed_tools = Some(text.to_owned()))?;
            let Some(LiveSettings::OpenAi(live)) = settings.live else {
                return Err("no model".to_owned());
            };
            Ok::<_, String>(live.policy.allowed_tools)
        };
        assert_eq!(tools("exec, repo.*").unwrap(), ["exec", "repo.*"]);
        assert_eq!(tools("*").unwrap(), ["*"]);
        assert!(tools("none").unwrap().is_empty());
        for wrong in ["exec,", "a*b", "a b", ","] {
            assert!(tools(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn opencode_is_started_or_attached_to_and_needs_to_know_the_same() {
        let started = live(|flags| flags.oc_provider = Some("opencode".into())).unwrap();
        assert!(matches!(
            started.live,
            Some(LiveSettings::OpenCode(OpenCodeSettings {
                setup: OpenCodeSetup::Start {
                    jail: true,
                    program: None,
                    ..
                },
                ..
            }))
        ));
        let attached = |model: &str| {
            live(|flags| {
                flags.oc_provider = Some("opencode".into());
                flags.oc_base_url = None;
                flags.oc_opencode_url = Some("http://127.0.0.1:4096".into());
                flags.oc_opencode_password = Some("pw-canary-0123456789".into());
                flags.oc_model = Some(model.to_owned());
            })
        };
        let settings = attached("p/m").unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
        assert!(matches!(
            settings.live,
            Some(LiveSettings::OpenCode(OpenCodeSettings {
                setup: OpenCodeSetup::Attach { .. },
                ..
            }))
        ));
        let refused = attached("m").unwrap_err();
        assert!(refused.contains("PROVIDER/MODEL"), "{refused}");
        let refused = live(|flags| flags.oc_provider = Some("other".into())).unwrap_err();
        assert!(refused.contains("openai, opencode"), "{refused}");
        let refused = live(|flags| flags.oc_opencode_version = Some("latest".into())).unwrap_err();
        assert!(refused.contains("1.18.33"), "{refused}");
    }

    #[test]
    fn the_version_that_is_accepted_by_default_is_the_one_that_was_tested() {
        let settings = live(|flags| flags.oc_provider = Some("opencode".into())).unwrap();
        let Some(LiveSettings::OpenCode(opencode)) = settings.live else {
            panic!("no OpenCode");
        };
        let tested = kodo_planner::TESTED_VERSION.to_owned();
        assert_eq!(opencode.version, VersionRule::Exactly(tested));
    }
}
