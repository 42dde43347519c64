//! The configuration of the binary: every setting is a flag and an environment variable; flag > environment > default.
//!
//! A setting is a field of one of the `…Settings` or `…Flags` in the modules below, with clap's attributes. It is shown by
//! `kodo serve --help` and in `docs/configuration.md`, which a test writes and compares.

mod api;
mod artifacts;
mod data_dir;
mod database;
mod given;
mod log;
#[cfg(test)]
mod page;
mod parsers;
mod planner;
mod sandbox;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kodo_contract::TreeBounds;
use kodo_sandbox::Limits;
use kodo_store::DatabaseConfig;

use api::ApiSettings;
pub(crate) use artifacts::ArtifactSettings;
pub(crate) use data_dir::{DataFolder, nearest, unwritable};
use database::DatabaseSettings;
pub(crate) use given::{Given, Refusal, with_settings};
pub(crate) use log::LogSettings;
pub(crate) use parsers::SecretText;
#[cfg(feature = "opencode")]
pub(crate) use planner::OpenCodeSetup;
pub(crate) use planner::{LiveSettings, OpenCodeSettings, PlannerMode, PlannerSettings};
pub(crate) use sandbox::{Isolation, SandboxMode, SandboxSettings};
use work::WorkSettings;

/// Every setting, typed, one by one; what depends on several of them is checked in [`Settings`].
#[derive(Debug, Args)]
struct Flags {
    #[command(flatten)]
    api: ApiSettings,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    work: WorkSettings,
    #[command(flatten)]
    planner: planner::PlannerFlags,
    #[command(flatten)]
    sandbox: sandbox::SandboxFlags,
    #[command(flatten)]
    artifacts: artifacts::ArtifactFlags,
    #[command(flatten)]
    data: data_dir::DataFlags,
    #[command(flatten)]
    log: LogSettings,
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The HTTP APIs.
    pub(crate) api: ApiSettings,
    /// The bearer token, if one is wanted.
    pub(crate) api_token: Option<SecretText>,
    /// How Postgres is used.
    pub(crate) database: DatabaseSettings,
    /// The product database.
    pub(crate) app: DatabaseConfig,
    /// The system database.
    pub(crate) system: DatabaseConfig,
    /// The worker.
    pub(crate) work: WorkSettings,
    /// The planner.
    pub(crate) planner: PlannerSettings,
    /// Which sandbox carries out tool calls.
    pub(crate) sbx_mode: SandboxMode,
    /// How long the mock sandbox pretends to work.
    pub(crate) sbx_mock_delay: Duration,
    /// The live sandbox, whether it is the one that carries out tool calls or not.
    pub(crate) live: SandboxSettings,
    /// The most that a call of a plan may ask for.
    pub(crate) sbx_most: Limits,
    /// The most that is carried from one call to the next.
    pub(crate) sbx_workspace: TreeBounds,
    /// Folder of the secrets that jobs can be given, if there is one.
    pub(crate) sbx_secrets_dir: Option<PathBuf>,
    /// Where large artifacts are stored.
    pub(crate) artifacts: ArtifactSettings,
    /// Folder of the private cluster and of the artifact store.
    pub(crate) data_dir: DataFolder,
    /// The log.
    pub(crate) log: LogSettings,
}

impl Settings {
    /// The configuration.
    ///
    /// # Errors
    /// The first setting that cannot be used, on one line: its name, its value and what is accepted.
    pub(crate) fn load(given: &Given) -> anyhow::Result<Self> {
        let (settings, refused) = Self::diagnose(given);
        match refused.into_iter().next() {
            Some(refusal) => Err(refusal.into()),
            None => settings.ok_or_else(|| anyhow::anyhow!("the settings cannot be read")),
        }
    }

    /// The configuration, with defaults in the place of what cannot be used, and every setting that cannot. There is no
    /// configuration if a default cannot be used.
    pub(crate) fn diagnose(given: &Given) -> (Option<Self>, Vec<Refusal>) {
        let mut given = given.clone();
        let mut refused = given.take_unreadable();
        loop {
            match Self::of(&given) {
                Ok(settings) => return (Some(settings), refused),
                Err(refusal) => {
                    let known = given.take(&refusal.variable);
                    refused.push(refusal);
                    if !known {
                        return (None, refused);
                    }
                }
            }
        }
    }

    /// The configuration, of settings that can each be read.
    fn of(given: &Given) -> Result<Self, Refusal> {
        let flags = given.read().map_err(|error| Refusal {
            variable: "configuration".to_owned(),
            reason: format!("{error:#}"),
        })?;
        let data_dir = DataFolder::of(flags.data, given)?;
        let most = flags.sandbox.most();
        Ok(Self {
            api_token: flags.api.token(given)?.map(SecretText::from),
            api: flags.api,
            app: flags.database.app(),
            system: flags.database.system(),
            database: flags.database,
            work: flags.work,
            planner: PlannerSettings::of(flags.planner, most, given)?,
            sbx_mode: flags.sandbox.sbx_mode,
            sbx_mock_delay: flags.sandbox.sbx_mock_delay,
            live: flags.sandbox.live(given)?,
            sbx_most: most,
            sbx_workspace: flags.sandbox.workspace(),
            sbx_secrets_dir: flags.sandbox.sbx_secrets_dir,
            artifacts: ArtifactSettings::of(flags.artifacts, given, &data_dir)?,
            data_dir,
            log: flags.log,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The settings of a command line.
    pub(crate) fn given(flags: &[&str]) -> Given {
        let command = crate::cli::command();
        let matches = command.try_get_matches_from(["kodo", "serve"].iter().chain(flags));
        Given::of(&matches.unwrap())
    }

    /// The configuration of a command line, or why it is refused.
    pub(crate) fn load(flags: &[&str]) -> Result<Settings, String> {
        Settings::load(&given(flags)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_takes_a_value_and_its_default_is_one_that_it_takes() {
        for setting in given::arguments().get_arguments() {
            let name = setting.get_id();
            assert!(setting.get_action().takes_values(), "{name} is a switch");
            for default in setting.get_default_values() {
                let flag = setting.get_long().unwrap();
                let flag = format!("--{flag}={}", default.to_string_lossy());
                assert!(load(&[&flag]).is_ok(), "{flag}: {:?}", load(&[&flag]).err());
            }
        }
        assert!(
            load(&["--sbx-microvm-accel=tcg"])
                .unwrap()
                .live
                .microvm
                .emulated
        );
    }

    #[test]
    fn a_flag_wins_and_a_wrong_one_is_named_with_what_is_accepted() {
        assert_eq!(load(&["--port=4001"]).unwrap().api.port, 4001);
        assert_eq!(
            load(&["--port=x"]).unwrap_err(),
            "--port=x is not valid: a whole number from 0 to 65535 is accepted"
        );
        assert!(load(&["--port=65536"]).unwrap_err().contains("65535"));
        assert!(load(&["--port=-1"]).unwrap_err().contains("65535"));
    }

    #[test]
    fn every_unusable_setting_is_found_and_the_others_are_kept() {
        let (settings, refused) = Settings::diagnose(&given(&[
            "--port=x",
            "--db-port=70000",
            "--host=0.0.0.0",
            "--app-db-name=kept",
        ]));
        let settings = settings.unwrap();
        assert_eq!((settings.api.port, settings.app.port), (3001, 54329));
        assert_eq!(settings.app.database, "kept");
        let mut variables: Vec<&str> = refused.iter().map(|it| it.variable.as_str()).collect();
        variables.sort_unstable();
        assert_eq!(variables, ["DB_PORT", "HOST", "PORT"]);
        let port = refused.iter().find(|refusal| refusal.variable == "PORT");
        assert!(port.unwrap().reason.starts_with("--port=x is not valid"));
    }

    #[test]
    fn a_usable_configuration_has_nothing_to_diagnose() {
        let (settings, refused) = Settings::diagnose(&Given::default());
        assert!(settings.is_some() && refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn an_open_address_without_a_token_is_refused() {
        let open = load(&["--host=0.0.0.0"]).unwrap_err();
        assert!(open.contains("API_TOKEN"), "{open}");
        assert!(load(&["--host=0.0.0.0", "--api-token=secret"]).is_ok());
    }

    #[test]
    fn a_secret_is_in_no_debug_output() {
        let settings = load(&["--api-token=canary", "--db-password=canary"]).unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
    }

    #[test]
    fn every_setting_has_a_flag_spelled_like_its_variable_and_says_what_it_is_for() {
        for setting in given::arguments().get_arguments() {
            let flag = setting.get_long().unwrap();
            let variable = given::variable_of(setting);
            let spelled = flag.to_uppercase().replace('-', "_");
            // The folder belongs to this project's programs, and to scripts.
            let spelled = spelled.replace("DATA_DIR", "KODO_DATA_DIR");
            assert_eq!(variable, spelled);
            assert!(setting.get_help().is_some() && setting.get_help_heading().is_some());
        }
    }

    #[test]
    fn flags_to_be_repeated_in_a_command_are_without_secrets() {
        let given = given(&["--port=1", "--oc-api-key=canary", "--db-password=canary"]);
        let flags: Vec<(&str, &str)> = given.flags().collect();
        assert_eq!(flags, [("PORT", "1")]);
    }
}
