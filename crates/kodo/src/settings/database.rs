//! The settings of Postgres.

use std::time::Duration;

use clap::Args;
use kodo_store::{DatabaseConfig, SslMode};

use super::SecretText;
use super::parsers::{database, filled, host, milliseconds, number, parsed};
use crate::devdb::Provider;

/// Where the two databases are, and how they are used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Postgres")]
pub(crate) struct DatabaseSettings {
    /// Postgres host, or the folder of its socket; the server has to be version 15 or newer
    #[arg(long, env, value_name = "HOST", default_value = "127.0.0.1", value_parser = host)]
    db_host: String,
    /// Postgres port
    #[arg(long, env, value_name = "PORT", default_value = "54329", value_parser = number::<u16>(1, u16::MAX))]
    db_port: u16,
    /// Postgres role
    #[arg(long, env, value_name = "ROLE", default_value = "postgres", value_parser = filled("the name of a role"))]
    db_user: String,
    /// Its password; the one setting that may be empty
    #[arg(long, env, value_name = "PASSWORD", default_value = "postgres")]
    db_password: SecretText,
    /// TLS to Postgres, as libpq's sslmode; certificates by PGSSLROOTCERT, PGSSLCERT and PGSSLKEY
    #[arg(long, env, value_name = "MODE", default_value = "prefer", value_parser = parsed::<SslMode>("one of disable, allow, prefer, require, verify-ca, verify-full"))]
    db_sslmode: SslMode,
    /// Product database (schema app)
    #[arg(long, env, value_name = "NAME", default_value = "app_local", value_parser = database)]
    app_db_name: String,
    /// DBOS system database (schema dbos); may be the same one
    #[arg(long, env, value_name = "NAME", default_value = "dbos_sys", value_parser = database)]
    sys_db_name: String,
    /// How long the start waits for Postgres, in milliseconds
    #[arg(long = "db-connect-timeout-ms", env = "DB_CONNECT_TIMEOUT_MS", value_name = "MS", default_value = "60000", value_parser = milliseconds)]
    pub(crate) db_connect_timeout: Duration,
    /// Connections of requests and steps to the product database; a process takes up to 17 more
    #[arg(long, env, value_name = "COUNT", default_value = "16", value_parser = number::<u32>(2, 1000))]
    pub(crate) db_pool_size: u32,
    /// Where `db up` and `dev` get a server from
    #[arg(
        long,
        env,
        value_name = "PROVIDER",
        default_value = "auto",
        ignore_case = true
    )]
    pub(crate) db_provider: Provider,
}

impl DatabaseSettings {
    /// The product database.
    pub(super) fn app(&self) -> DatabaseConfig {
        DatabaseConfig {
            host: self.db_host.clone(),
            port: self.db_port,
            user: self.db_user.clone(),
            password: self.db_password.expose().to_owned(),
            database: self.app_db_name.clone(),
            ssl_mode: self.db_sslmode,
        }
    }

    /// The system database.
    pub(super) fn system(&self) -> DatabaseConfig {
        self.app().with_database(self.sys_db_name.clone())
    }
}
