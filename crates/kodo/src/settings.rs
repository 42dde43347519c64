//! Configuration: one table of keys, each a flag and an environment variable; flag > environment > default.

mod artifacts;
mod data_dir;
mod log;
mod planner;
mod raw;
mod sandbox;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use kodo_sandbox::Limits;
use kodo_store::DatabaseConfig;

pub(crate) use artifacts::ArtifactSettings;
pub(crate) use data_dir::{DataFolder, nearest, unwritable};
pub(crate) use log::LogSettings;
pub(crate) use planner::{
    LiveSettings, OpenCodeSettings, OpenCodeSetup, PlannerMode, PlannerSettings,
};
pub(crate) use sandbox::{Isolation, SandboxMode, SandboxSettings};

use raw::{Raw, secret};

/// Declares every key once: field, flag, variable, default, what it is for.
macro_rules! keys {
    ($($field:ident $flag:literal $variable:literal $default:literal $help:literal;)*) => {
        /// The flags of every key, as given.
        #[derive(Debug, Default, Clone, Args)]
        pub(crate) struct Flags {
            $(
                #[arg(
                    long = $flag,
                    value_name = "VALUE",
                    global = true,
                    hide_short_help = true,
                    help_heading = "Settings",
                    help = concat!($help, " [env: ", $variable, "] [default: ", $default, "]"),
                )]
                $field: Option<String>,
            )*
            /// Variables that count as not set, whatever flag and environment say: see [`Settings::diagnose`].
            #[arg(skip)]
            ignored: Vec<&'static str>,
        }

        /// Flag, variable and default of every key.
        pub(crate) const KEYS: &[(&str, &str, &str)] = &[$(($flag, $variable, $default),)*];

        impl Flags {
            $(
                fn $field(&self) -> Raw {
                    if self.ignored.contains(&$variable) {
                        return Raw::unset($flag, $variable, $default);
                    }
                    Raw::new($flag, $variable, self.$field.as_deref(), $default)
                }
            )*

            /// The variables that were given as flags, with their values.
            pub(crate) fn given(&self) -> Vec<(&'static str, &str)> {
                [$(($variable, self.$field.as_deref()),)*]
                    .into_iter()
                    .filter_map(|(variable, value)| Some((variable, value?)))
                    .collect()
            }
        }
    };
}

keys! {
    host "host" "HOST" "127.0.0.1" "Address of the product API; anything but loopback needs an API token";
    port "port" "PORT" "3001" "Port of the product API";
    admin_port "admin-port" "ADMIN_PORT" "3002" "Port of the admin API, always on loopback";
    api_token "api-token" "API_TOKEN" "" "Bearer token that every route but /healthz and /readyz wants";
    api_token_file "api-token-file" "API_TOKEN_FILE" "" "File that holds the token";
    db_host "db-host" "DB_HOST" "127.0.0.1" "Postgres host";
    db_port "db-port" "DB_PORT" "54329" "Postgres port";
    db_user "db-user" "DB_USER" "postgres" "Postgres role";
    db_password "db-password" "DB_PASSWORD" "postgres" "Its password";
    db_sslmode "db-sslmode" "DB_SSLMODE" "prefer" "TLS to Postgres, as libpq's sslmode";
    app_db_name "app-db-name" "APP_DB_NAME" "app_local" "Product database (schema app)";
    sys_db_name "sys-db-name" "SYS_DB_NAME" "dbos_sys" "DBOS system database (schema dbos); may be the same one";
    db_connect_timeout_ms "db-connect-timeout-ms" "DB_CONNECT_TIMEOUT_MS" "60000" "How long the start waits for Postgres, in milliseconds";
    db_pool_size "db-pool-size" "DB_POOL_SIZE" "16" "Connections to the product database, and as many of the engine";
    wf_sleep_ms "wf-sleep-ms" "WF_SLEEP_MS" "5000" "Durable sleep of the crash demo, in milliseconds";
    max_concurrent_runs "max-concurrent-runs" "MAX_CONCURRENT_RUNS" "64" "Runs that this process works on at once; further ones wait as rows";
    max_concurrent_tool_calls "max-concurrent-tool-calls" "MAX_CONCURRENT_TOOL_CALLS" "8" "Jobs that this process has in a live sandbox at once; further ones wait";
    drain_grace_ms "drain-grace-ms" "DRAIN_GRACE_MS" "10000" "How long a shutdown waits for running steps and requests, in milliseconds";
    oc_mode "oc-mode" "OC_MODE" "replay" "Planner: replay answers from fixtures, live asks a model, record asks one and keeps its answers as fixtures";
    oc_fixtures_dir "oc-fixtures-dir" "OC_FIXTURES_DIR" "" "Folder of planner fixtures; without one fixtures/oc, or what is built in";
    oc_provider "oc-provider" "OC_PROVIDER" "openai" "Who asks the model: openai asks its API, opencode has an OpenCode ask it";
    oc_base_url "oc-base-url" "OC_BASE_URL" "" "The model's OpenAI-compatible API, such as http://127.0.0.1:11434/v1 or https://api.openai.com/v1";
    oc_model "oc-model" "OC_MODEL" "" "The model's name there";
    oc_api_key "oc-api-key" "OC_API_KEY" "" "Its key, where it wants one";
    oc_api_key_file "oc-api-key-file" "OC_API_KEY_FILE" "" "File that holds the key";
    oc_allow_http "oc-allow-http" "OC_ALLOW_HTTP" "false" "Whether a model on another machine may be asked by http, in the clear";
    oc_stream "oc-stream" "OC_STREAM" "false" "Whether answers are asked for in pieces; of use behind proxies that cut long silences";
    oc_deadline_ms "oc-deadline-ms" "OC_DEADLINE_MS" "120000" "Within which a plan has to be there, retries and repairs included, in milliseconds";
    oc_max_tokens "oc-max-tokens" "OC_MAX_TOKENS" "4096" "The longest answer of the model, in tokens";
    oc_max_steps "oc-max-steps" "OC_MAX_STEPS" "64" "The most tool calls of a model's plan";
    oc_max_plan_bytes "oc-max-plan-bytes" "OC_MAX_PLAN_BYTES" "262144" "The most bytes of a model's plan";
    oc_allowed_tools "oc-allowed-tools" "OC_ALLOWED_TOOLS" "exec" "Tools that a model's plan may call, by commas; x* is all that begin with x, none is none";
    oc_allowed_connectors "oc-allowed-connectors" "OC_ALLOWED_CONNECTORS" "none" "Connectors that an intent may name and its plan may use, written in the same way";
    oc_opencode_bin "oc-opencode-bin" "OC_OPENCODE_BIN" "" "The program opencode; without one the path's, or what oc:opencode:install has installed";
    oc_opencode_version "oc-opencode-version" "OC_OPENCODE_VERSION" "1.18.33" "Version of OpenCode that is accepted, or any; this one was tested";
    oc_opencode_jail "oc-opencode-jail" "OC_OPENCODE_JAIL" "true" "Whether OpenCode runs in the jail, with no network but a way to the model; false leaves it this machine's network and files";
    oc_opencode_url "oc-opencode-url" "OC_OPENCODE_URL" "" "An OpenCode that somebody else runs, to be used instead of starting one";
    oc_opencode_username "oc-opencode-username" "OC_OPENCODE_USERNAME" "opencode" "The user of its API";
    oc_opencode_password "oc-opencode-password" "OC_OPENCODE_PASSWORD" "" "Its password";
    oc_opencode_password_file "oc-opencode-password-file" "OC_OPENCODE_PASSWORD_FILE" "" "File that holds the password";
    sbx_mode "sbx-mode" "SBX_MODE" "mock" "Sandbox";
    sbx_mock_delay_ms "sbx-mock-delay-ms" "SBX_MOCK_DELAY_MS" "0" "How long the mock sandbox pretends to work, in milliseconds";
    sbx_provider "sbx-provider" "SBX_PROVIDER" "auto" "Live sandbox: auto, process, gvisor or microvm; auto takes the strongest there is";
    sbx_min_isolation "sbx-min-isolation" "SBX_MIN_ISOLATION" "process" "The weakest live sandbox that will do: process, gvisor or microvm";
    sbx_cgroup "sbx-cgroup" "SBX_CGROUP" "auto" "What bounds memory and processes of a job: auto, require, or a delegated cgroup (an absolute path)";
    sbx_read_only "sbx-read-only" "SBX_READ_ONLY" "" "Further folders that jobs can read, absolute, with ':' between them";
    sbx_runsc "sbx-runsc" "SBX_RUNSC" "runsc" "gVisor's program runsc: a path, or a name that is looked for on PATH";
    sbx_gvisor_platform "sbx-gvisor-platform" "SBX_GVISOR_PLATFORM" "systrap" "How gVisor gets hold of system calls: systrap, ptrace or kvm; one that does not work is refused";
    sbx_microvm_dir "sbx-microvm-dir" "SBX_MICROVM_DIR" ".data/microvm" "What microVMs are made of: the folder that the task sbx:microvm:build fills";
    sbx_microvm_accel "sbx-microvm-accel" "SBX_MICROVM_ACCEL" "kvm" "Who executes a microVM: kvm, if a guest proves to run, or tcg, software that is many times slower";
    sbx_microvm_ready "sbx-microvm-ready" "SBX_MICROVM_READY" "1" "MicroVMs that a service keeps booted, so that a job does not wait for one";
    sbx_microvm_max "sbx-microvm-max" "SBX_MICROVM_MAX" "4" "Jobs in microVMs at the same time; further ones wait";
    sbx_microvm_memory_mib "sbx-microvm-memory-mib" "SBX_MICROVM_MEMORY_MIB" "768" "Memory of a microVM in MiB; a job that needs more waits for a larger one of its own";
    sbx_max_wall_ms "sbx-max-wall-ms" "SBX_MAX_WALL_MS" "3600000" "Longest time that a call of a plan may ask for, in milliseconds";
    sbx_max_memory_mib "sbx-max-memory-mib" "SBX_MAX_MEMORY_MIB" "4096" "Most memory that a call of a plan may ask for, in MiB";
    sbx_secrets_dir "sbx-secrets-dir" "SBX_SECRETS_DIR" "" "Folder of the secrets that jobs can be given by name, one file each";
    artifact_store "artifact-store" "ARTIFACT_STORE" "" "Where large artifacts are stored: an absolute path or s3://BUCKET/PREFIX; without it, folder artifacts in KODO_DATA_DIR";
    artifact_store_patience_ms "artifact-store-patience-ms" "ARTIFACT_STORE_PATIENCE_MS" "60000" "How long a step waits for a store that is unavailable or full before its run fails, in milliseconds";
    artifact_store_allow_http "artifact-store-allow-http" "ARTIFACT_STORE_ALLOW_HTTP" "false" "Whether a store on another machine may be used by http, in the clear";
    aws_endpoint_url "aws-endpoint-url" "AWS_ENDPOINT_URL" "" "Address of the S3-compatible store, where it is not Amazon's";
    aws_region "aws-region" "AWS_REGION" "us-east-1" "Its region";
    aws_access_key_id "aws-access-key-id" "AWS_ACCESS_KEY_ID" "" "Who we are there";
    aws_secret_access_key "aws-secret-access-key" "AWS_SECRET_ACCESS_KEY" "" "What proves it";
    aws_session_token "aws-session-token" "AWS_SESSION_TOKEN" "" "Part of credentials that are lent for a while";
    test_seed "test-seed" "TEST_SEED" "424242" "Seed of everything random in tests, part of the planner's fixture key";
    rust_log "rust-log" "RUST_LOG" "" "What the service logs, such as info or info,kodo_engine=debug; without it, info and other libraries' warnings";
    log_format "log-format" "LOG_FORMAT" "" "How it logs: text or json; without it text on a terminal, else json";
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the product API listens.
    pub(crate) host: IpAddr,
    /// Its port; 0 lets the system choose.
    pub(crate) port: u16,
    /// The admin API's port; 0 lets the system choose.
    pub(crate) admin_port: u16,
    /// What a demonstration's service listens on: the port that was asked for, else one that is free, so that
    /// it does not collide with a service that runs.
    pub(crate) demo_port: u16,
    /// The same for its admin API.
    pub(crate) demo_admin_port: u16,
    /// What the service of a demonstration that brings everything itself listens on: a flag alone moves it, since an
    /// exported `PORT` is another service's.
    pub(crate) own_port: u16,
    /// The same for its admin API.
    pub(crate) own_admin_port: u16,
    /// The bearer token, if one is wanted.
    pub(crate) api_token: Option<String>,
    /// The product database.
    pub(crate) app: DatabaseConfig,
    /// The system database.
    pub(crate) system: DatabaseConfig,
    /// How long the start waits for Postgres.
    pub(crate) db_connect_timeout: Duration,
    /// Size of the product pool and of the engine's.
    pub(crate) db_pool_size: u32,
    /// Durable sleep of the crash demo.
    pub(crate) wf_sleep: Duration,
    /// Bound on concurrent runs.
    pub(crate) max_concurrent_runs: usize,
    /// Jobs in a live sandbox at once.
    pub(crate) max_concurrent_tool_calls: usize,
    /// Bound on a shutdown.
    pub(crate) drain_grace: Duration,
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
    /// Folder of the secrets that jobs can be given, if there is one.
    pub(crate) sbx_secrets_dir: Option<PathBuf>,
    /// Where large artifacts are stored.
    pub(crate) artifacts: ArtifactSettings,
    /// The seed.
    pub(crate) seed: u64,
    /// Folder of the private cluster and of the artifact store.
    pub(crate) data_dir: DataFolder,
    /// The log.
    pub(crate) log: LogSettings,
}

impl Settings {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// One line that names the variable, the value and what is accepted.
    pub(crate) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let host = flags
            .host()
            .parse("an IP address such as 127.0.0.1 or 0.0.0.0")?;
        let api_token = secret(&flags.api_token(), &flags.api_token_file(), "a token")?;
        ensure!(
            is_loopback(host) || api_token.is_some(),
            "HOST={host} would serve everybody who can reach this machine: set API_TOKEN or API_TOKEN_FILE, \
             or keep to a loopback address"
        );
        let server = DatabaseConfig {
            host: flags.db_host().filled("a host name or address")?,
            port: flags.db_port().number(1, u16::MAX)?,
            user: flags.db_user().filled("the name of a role")?,
            password: flags.db_password().value,
            database: flags.app_db_name().database()?,
            ssl_mode: flags
                .db_sslmode()
                .parse("one of disable, allow, prefer, require, verify-ca, verify-full")?,
        };
        let milliseconds = |raw: Raw| -> anyhow::Result<Duration> {
            Ok(Duration::from_millis(raw.number(0, u32::MAX)?.into()))
        };
        let data_dir = DataFolder::load(flags)?;
        Ok(Self {
            host,
            port: flags.port().number(0, u16::MAX)?,
            admin_port: flags.admin_port().number(0, u16::MAX)?,
            demo_port: flags.port().or_unset(0)?,
            demo_admin_port: flags.admin_port().or_unset(0)?,
            own_port: flags.port().by_flag_or(0)?,
            own_admin_port: flags.admin_port().by_flag_or(0)?,
            api_token,
            system: server.with_database(flags.sys_db_name().database()?),
            app: server,
            db_connect_timeout: milliseconds(flags.db_connect_timeout_ms())?,
            db_pool_size: flags.db_pool_size().number(2, 1000)?,
            wf_sleep: milliseconds(flags.wf_sleep_ms())?,
            max_concurrent_runs: flags.max_concurrent_runs().number(1, 100_000)?,
            max_concurrent_tool_calls: flags.max_concurrent_tool_calls().number(1, 10_000)?,
            drain_grace: milliseconds(flags.drain_grace_ms())?,
            planner: PlannerSettings::load(flags)?,
            sbx_mode: SandboxMode::load(flags)?,
            live: SandboxSettings::load(flags)?,
            sbx_most: sandbox::most(flags)?,
            sbx_secrets_dir: sandbox::secrets_dir(flags)?,
            sbx_mock_delay: milliseconds(flags.sbx_mock_delay_ms())?,
            artifacts: ArtifactSettings::load(flags, &data_dir)?,
            seed: flags.test_seed().number(0, u64::MAX)?,
            data_dir,
            log: LogSettings::load(flags)?,
        })
    }

    /// The port that the product API and the admin API would both need, if it is one.
    pub(crate) fn port_of_both(&self) -> Option<u16> {
        let host = self.host.to_canonical();
        // Another address of this machine has ports of its own.
        let meet = host.is_unspecified() || host == IpAddr::V4(Ipv4Addr::LOCALHOST);
        (meet && self.port != 0 && self.port == self.admin_port).then_some(self.port)
    }
}

/// A setting that cannot be used.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The variable whose value is at fault.
    pub(crate) variable: &'static str,
    /// What [`Settings::load`] says of it.
    pub(crate) reason: String,
}

impl Settings {
    /// What can be used of the configuration, and every setting that cannot, with the defaults in their place.
    ///
    /// [`Settings::load`] ends at the first mistake. Here each one is looked for by leaving variables out: the one
    /// without which the complaint changes is the one that is complained of.
    pub(crate) fn diagnose(flags: &Flags) -> (Option<Self>, Vec<Refusal>) {
        let mut flags = flags.clone();
        let mut refused = Vec::new();
        loop {
            let reason = match Self::load(&flags) {
                Ok(settings) => return (Some(settings), refused),
                Err(error) => format!("{error:#}"),
            };
            let guilty = KEYS
                .iter()
                .map(|(_, variable, _)| *variable)
                .chain([data_dir::VARIABLE])
                .find(|variable| {
                    let mut without = flags.clone();
                    without.ignored.push(variable);
                    !flags.ignored.contains(variable)
                        && match Self::load(&without) {
                            Ok(_) => true,
                            Err(other) => format!("{other:#}") != reason,
                        }
                });
            let Some(variable) = guilty else {
                refused.push(Refusal {
                    variable: "configuration",
                    reason,
                });
                return (None, refused);
            };
            flags.ignored.push(variable);
            refused.push(Refusal { variable, reason });
        }
    }
}

/// Whether only this machine can reach an address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(flags: Flags) -> String {
        Settings::load(&flags).unwrap_err().to_string()
    }

    #[test]
    fn a_flag_wins_and_a_wrong_one_is_named_with_what_is_accepted() {
        let flags = |value: &str| Flags {
            port: Some(value.to_owned()),
            ..Flags::default()
        };
        assert_eq!(Settings::load(&flags("4001")).unwrap().port, 4001);
        assert_eq!(
            refused(flags("x")),
            "--port=x is not valid: a whole number from 0 to 65535 is accepted"
        );
        assert!(refused(flags("65536")).contains("65535"));
        assert!(refused(flags("-1")).contains("65535"));
    }

    #[test]
    fn a_flag_moves_the_ports_of_every_demonstration() {
        let flags = Flags {
            port: Some("4001".to_owned()),
            ..Flags::default()
        };
        let settings = Settings::load(&flags).unwrap();
        assert_eq!((settings.demo_port, settings.own_port), (4001, 4001));
        assert_eq!(settings.own_admin_port, 0);
    }

    #[test]
    fn every_unusable_setting_is_found_and_the_others_are_kept() {
        let flags = Flags {
            port: Some("x".to_owned()),
            db_port: Some("70000".to_owned()),
            host: Some("0.0.0.0".to_owned()),
            app_db_name: Some("kept".to_owned()),
            ..Flags::default()
        };
        let (settings, refused) = Settings::diagnose(&flags);
        let settings = settings.unwrap();
        assert_eq!((settings.port, settings.app.port), (3001, 54329));
        assert_eq!(settings.app.database, "kept");
        let mut variables: Vec<&str> = refused.iter().map(|refusal| refusal.variable).collect();
        variables.sort_unstable();
        assert_eq!(variables, ["DB_PORT", "HOST", "PORT"]);
        let port = refused.iter().find(|refusal| refusal.variable == "PORT");
        assert!(port.unwrap().reason.starts_with("--port=x is not valid"));
    }

    #[test]
    fn a_usable_configuration_has_nothing_to_diagnose() {
        let (settings, refused) = Settings::diagnose(&Flags::default());
        assert!(settings.is_some() && refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn an_open_address_without_a_token_is_refused() {
        let open = Flags {
            host: Some("0.0.0.0".to_owned()),
            ..Flags::default()
        };
        assert!(refused(open.clone()).contains("API_TOKEN"));
        let guarded = Flags {
            api_token: Some("secret".to_owned()),
            ..open
        };
        assert!(Settings::load(&guarded).is_ok());
    }

    #[test]
    fn a_provider_or_a_platform_that_there_is_none_of_is_refused_with_those_there_are() {
        let provider = Flags {
            sbx_provider: Some("docker".to_owned()),
            ..Flags::default()
        };
        assert_eq!(
            refused(provider),
            "--sbx-provider=docker is not valid: auto, process, gvisor, microvm is accepted"
        );
        let platform = |word: &str| Flags {
            sbx_gvisor_platform: Some(word.to_owned()),
            ..Flags::default()
        };
        assert_eq!(
            refused(platform("tcg")),
            "--sbx-gvisor-platform=tcg is not valid: systrap, ptrace, kvm is accepted"
        );
        assert!(Settings::load(&platform("ptrace")).is_ok());
        let nothing = Flags {
            sbx_runsc: Some(String::new()),
            ..Flags::default()
        };
        assert!(refused(nothing).contains("--sbx-runsc"));
    }

    #[test]
    fn a_provider_that_is_weaker_than_what_must_be_reached_is_refused() {
        let flags = |provider: &str, least: &str| Flags {
            sbx_provider: Some(provider.to_owned()),
            sbx_min_isolation: Some(least.to_owned()),
            ..Flags::default()
        };
        for least in ["gvisor", "microvm"] {
            let reason = refused(flags("process", least));
            assert!(
                reason.contains(&format!("SBX_MIN_ISOLATION={least}")),
                "{reason}"
            );
            assert!(Settings::load(&flags("microvm", least)).is_ok());
            assert_eq!(
                Settings::load(&flags("gvisor", least)).is_ok(),
                least == "gvisor"
            );
            assert!(Settings::load(&flags("auto", least)).is_ok());
        }
    }

    #[test]
    fn every_key_has_a_flag_spelled_like_its_variable() {
        for (flag, variable, _) in KEYS {
            assert_eq!(flag.to_uppercase().replace('-', "_"), *variable);
        }
    }
}
