//! The settings of the planner (OC).
#![allow(
    rustdoc::bare_urls,
    reason = "the doc comments of settings are their help texts"
)]

mod model;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};
use kodo_planner::{TESTED_VERSION, VersionRule};
use kodo_sandbox::Limits;

pub(crate) use model::{LiveSettings, OpenCodeSettings, OpenCodeSetup};

use super::SecretText;
use super::given::{Given, Refusal, refusal};
use super::parsers::{boolean, existing_folder, filled, milliseconds, number, some_milliseconds};

/// The repository's fixtures: the default if the current folder is the repository.
const FIXTURES: &str = "fixtures/oc";

/// An empty list: an empty variable would be one that is not set.
const NONE: &str = "none";

/// Names by commas. A name of its own, because clap would take `Vec` for an argument that is repeated.
type Names = Vec<String>;

/// How plans are made, as it was given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Planner (OC)")]
pub(super) struct PlannerFlags {
    /// Where plans come from
    #[arg(long, env, value_name = "MODE", default_value = "replay")]
    oc_mode: PlannerMode,
    /// Folder of planner fixtures; if not set, fixtures/oc, or the fixtures that are built in
    #[arg(long, env, value_name = "DIR", value_parser = existing_folder)]
    oc_fixtures_dir: Option<PathBuf>,
    /// Who asks the model
    #[arg(long, env, value_name = "PROVIDER", default_value = "openai")]
    oc_provider: Asker,
    /// The model's OpenAI-compatible API, such as http://127.0.0.1:11434/v1 or https://api.openai.com/v1; live and record
    /// need it
    #[arg(long, env, value_name = "URL")]
    oc_base_url: Option<String>,
    /// The model's name there; live and record need it
    #[arg(long, env, value_name = "NAME", value_parser = filled("the name of a model"))]
    oc_model: Option<String>,
    /// The API's key, if it wants one; never shown, logged or stored
    #[arg(long, env, value_name = "KEY")]
    oc_api_key: Option<SecretText>,
    /// File that holds the key
    #[arg(long, env, value_name = "FILE")]
    oc_api_key_file: Option<PathBuf>,
    /// Whether a model on another machine may be asked by http, in the clear
    #[arg(long, env, value_name = "BOOL", action = ArgAction::Set, default_value = "false", value_parser = boolean)]
    oc_allow_http: bool,
    /// Whether answers are streamed; of use behind proxies that end long silences
    #[arg(long, env, value_name = "BOOL", action = ArgAction::Set, default_value = "false", value_parser = boolean)]
    oc_stream: bool,
    /// How long making a plan may take at once, retries and repairs included, in milliseconds
    #[arg(long = "oc-deadline-ms", env = "OC_DEADLINE_MS", value_name = "MS", default_value = "120000", value_parser = some_milliseconds)]
    oc_deadline: Duration,
    /// How long a run waits for a planner that is still away after that, in milliseconds; it is asked again with growing
    /// pauses, also after a restart of the service
    #[arg(long = "oc-unreachable-ms", env = "OC_UNREACHABLE_MS", value_name = "MS", default_value = "900000", value_parser = milliseconds)]
    oc_unreachable: Duration,
    /// The longest answer of the model, in tokens
    #[arg(long, env, value_name = "COUNT", default_value = "4096", value_parser = number::<u32>(1, u32::MAX))]
    oc_max_tokens: u32,
    /// The most tool calls of a model's plan
    // The plan's schema has no room for more.
    #[arg(long, env, value_name = "COUNT", default_value = "64", value_parser = number::<usize>(1, 256))]
    oc_max_steps: usize,
    /// The most bytes of a model's plan
    #[arg(long, env, value_name = "BYTES", default_value = "262144", value_parser = number::<usize>(1024, 4 << 20))]
    oc_max_plan_bytes: usize,
    /// Tools that a model's plan may call, by commas; x* is every name that begins with x, none is an empty list. A plan
    /// that calls another one ends its run with plan_refused before anything runs
    #[arg(long, env, value_name = "NAMES", default_value = "exec", value_parser = names)]
    oc_allowed_tools: Names,
    /// Connectors that an intent may name and its plan may use, written in the same way
    #[arg(long, env, value_name = "NAMES", default_value = "none", value_parser = names)]
    oc_allowed_connectors: Names,
    /// The program opencode; if not set, the one on PATH, or the one that oc:opencode:install has installed
    #[arg(long, env, value_name = "FILE")]
    oc_opencode_bin: Option<PathBuf>,
    /// Version of OpenCode that is accepted, or any; the default was tested
    #[arg(long, env, value_name = "VERSION", default_value = TESTED_VERSION, value_parser = version)]
    oc_opencode_version: VersionRule,
    /// Whether OpenCode runs in the jail, with no network but a way to the model; false leaves it this machine's network
    /// and files
    #[arg(long, env, value_name = "BOOL", action = ArgAction::Set, default_value = "true", value_parser = boolean)]
    oc_opencode_jail: bool,
    /// An OpenCode that somebody else runs, to be used instead of starting one
    #[arg(long, env, value_name = "URL")]
    oc_opencode_url: Option<String>,
    /// The user of that OpenCode's API
    #[arg(long, env, value_name = "NAME", default_value = "opencode", value_parser = user)]
    oc_opencode_username: String,
    /// That user's password
    #[arg(long, env, value_name = "PASSWORD")]
    oc_opencode_password: Option<SecretText>,
    /// File that holds the password
    #[arg(long, env, value_name = "FILE")]
    oc_opencode_password_file: Option<PathBuf>,
}

/// Who asks the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Asker {
    /// this process, by the model's API
    #[value(name = "openai")]
    OpenAi,
    /// an OpenCode
    #[value(name = "opencode")]
    OpenCode,
}

/// Where plans come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlannerMode {
    /// fixtures; no socket is opened
    Replay,
    /// a model, whose answers are kept as fixtures
    Record,
    /// a model
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
    /// How long a run waits for a planner that is away.
    pub(crate) patience: Duration,
}

impl PlannerSettings {
    /// Every value that is given is checked, in every mode.
    pub(super) fn of(flags: PlannerFlags, most: Limits, given: &Given) -> Result<Self, Refusal> {
        if flags.oc_provider == Asker::OpenCode && !cfg!(feature = "opencode") {
            let provider = given.assignment("OC_PROVIDER");
            return Err(refusal(
                "OC_PROVIDER",
                format!(
                    "{provider} is not valid: this kodo was built without the cargo feature opencode"
                ),
            ));
        }
        let mode = flags.oc_mode;
        let here = PathBuf::from(FIXTURES);
        let fixtures_dir = flags.oc_fixtures_dir.clone();
        let fixtures_dir = fixtures_dir.or_else(|| here.is_dir().then_some(here));
        let placed = flags.oc_base_url.is_some() || flags.attaches();
        let named = flags.oc_model.is_some();
        let settings = Self {
            mode,
            fixtures_dir,
            patience: flags.oc_unreachable,
            live: flags.model(most, given)?,
        };
        let needs = |what: &str| {
            let mode = given.assignment("OC_MODE");
            Err(refusal("OC_MODE", format!("{mode} needs {what}")))
        };
        match mode {
            PlannerMode::Replay => Ok(settings),
            _ if !placed => needs(
                "a model: set OC_BASE_URL to its OpenAI-compatible API, such as http://127.0.0.1:11434/v1, and \
                 OC_MODEL to its name there",
            ),
            _ if !named => needs("to know which model: set OC_MODEL to its name at OC_BASE_URL"),
            PlannerMode::Record if settings.fixtures_dir.is_none() => {
                needs("a folder for what it records: set OC_FIXTURES_DIR to an existing one")
            }
            _ => Ok(settings),
        }
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

fn user(text: &str) -> Result<String, &'static str> {
    match text.contains(':') {
        true => Err("a name without a colon"),
        false => filled("a name")(text),
    }
}

fn version(text: &str) -> Result<VersionRule, &'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    match text {
        "any" => Ok(VersionRule::Any),
        version
            if version.starts_with(|it: char| it.is_ascii_digit()) && version.bytes().all(good) =>
        {
            Ok(VersionRule::Exactly(version.to_owned()))
        }
        _ => Err("a version such as 1.18.33, or any,"),
    }
}

fn names(text: &str) -> Result<Names, &'static str> {
    if text == NONE {
        return Ok(Vec::new());
    }
    let names: Names = text.split(',').map(|name| name.trim().to_owned()).collect();
    let good = |name: &String| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && !name[..name.len() - 1].contains('*')
    };
    if !names.iter().all(good) {
        return Err("names by commas, each with a * at its end or without one, or none");
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::load;

    fn planner(given: &[&str]) -> Result<PlannerSettings, String> {
        load(given).map(|settings| settings.planner)
    }

    const LIVE: &str = "--oc-mode=live";
    const PLACE: &str = "--oc-base-url=http://127.0.0.1:1";
    const MODEL: &str = "--oc-model=m";

    fn live(more: &str) -> Result<PlannerSettings, String> {
        planner(&[LIVE, PLACE, MODEL, more])
    }

    #[test]
    fn live_needs_to_know_where_and_which_and_says_what_to_set() {
        assert!(planner(&[LIVE, PLACE, MODEL]).is_ok());
        let nowhere = planner(&[LIVE, MODEL]).unwrap_err();
        assert!(
            nowhere.starts_with("--oc-mode=live needs a model: set OC_BASE_URL"),
            "{nowhere}"
        );
        let nobody = planner(&[LIVE, PLACE]).unwrap_err();
        assert!(nobody.contains("set OC_MODEL"), "{nobody}");
        // Replay needs neither, and takes them for the commands that ask a model.
        assert!(planner(&[]).unwrap().live.is_none());
        assert!(planner(&[PLACE, MODEL]).unwrap().live.is_some());
    }

    #[test]
    fn a_password_or_a_key_in_a_url_is_refused_and_not_shown() {
        for url in [
            "https://me:hush@example.com",
            "https:/me:hush@example.com",
            "me:hush@example.com",
            "https://example.com/v1?key=hush",
            "example.com/v1?a=b@c&key=hush",
            "https://example.com/v1#hush",
            "https://me:hush@example.com/v1?key=hush",
        ] {
            let refused = planner(&[&format!("--oc-base-url={url}")]).unwrap_err();
            assert!(!refused.contains("hush"), "{refused}");
        }
    }

    #[test]
    fn a_key_is_in_no_debug_output() {
        let settings = live("--oc-api-key=sk-canary-0123456789");
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("[redacted]") && !shown.contains("canary"),
            "{shown}"
        );
    }

    #[test]
    fn lists_of_names_are_read_and_wrong_ones_are_refused() {
        assert_eq!(names("exec, repo.*").unwrap(), ["exec", "repo.*"]);
        assert_eq!(names("*").unwrap(), ["*"]);
        assert!(names("none").unwrap().is_empty());
        for wrong in ["exec,", "a*b", "a b", ","] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
        let Some(LiveSettings::OpenAi(live)) = live("--oc-allowed-tools=a,b").unwrap().live else {
            panic!("no model");
        };
        assert_eq!(live.policy.allowed_tools, ["a", "b"]);
    }

    #[cfg(not(feature = "opencode"))]
    #[test]
    fn opencode_is_refused_by_a_kodo_that_was_built_without_it() {
        let refused = live("--oc-provider=opencode").unwrap_err();
        assert_eq!(
            refused,
            "--oc-provider=opencode is not valid: this kodo was built without the cargo feature opencode"
        );
    }

    #[cfg(feature = "opencode")]
    #[test]
    fn opencode_is_started_or_attached_to_and_needs_to_know_the_same() {
        let started = live("--oc-provider=opencode").unwrap();
        assert!(matches!(
            started.live,
            Some(LiveSettings::OpenCode(OpenCodeSettings {
                setup: OpenCodeSetup::Start {
                    jail: true,
                    program: None,
                    ..
                },
                version: VersionRule::Exactly(version),
                ..
            })) if version == TESTED_VERSION
        ));
        let attached = |model: &str| {
            planner(&[
                LIVE,
                "--oc-provider=opencode",
                "--oc-opencode-url=http://127.0.0.1:4096",
                "--oc-opencode-password=pw-canary-0123456789",
                &format!("--oc-model={model}"),
            ])
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
        let refused = live("--oc-provider=other").unwrap_err();
        assert!(refused.contains("openai, opencode"), "{refused}");
        let refused = live("--oc-opencode-version=latest").unwrap_err();
        assert!(refused.contains("1.18.33"), "{refused}");
    }
}
