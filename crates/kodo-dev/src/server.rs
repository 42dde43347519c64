//! The Postgres server that a verb works on, as flags and as the variables that `kodo` reads.

use kodo_store::{DatabaseConfig, SslMode};

/// Where the server is.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// Postgres host
    #[arg(long, env = "DB_HOST", default_value = "127.0.0.1")]
    db_host: String,
    /// Postgres port
    #[arg(long, env = "DB_PORT", default_value_t = 54329)]
    db_port: u16,
    /// Postgres role
    #[arg(long, env = "DB_USER", default_value = "postgres")]
    db_user: String,
    /// Its password
    #[arg(
        long,
        env = "DB_PASSWORD",
        default_value = "postgres",
        hide_env_values = true
    )]
    db_password: String,
    /// TLS to Postgres, as libpq's sslmode
    #[arg(long, env = "DB_SSLMODE", default_value = "prefer")]
    db_sslmode: SslMode,
}

impl Server {
    /// A database on it.
    pub(crate) fn database(&self, name: &str) -> DatabaseConfig {
        DatabaseConfig {
            host: self.db_host.clone(),
            port: self.db_port,
            user: self.db_user.clone(),
            password: self.db_password.clone(),
            database: name.to_owned(),
            ssl_mode: self.db_sslmode,
        }
    }
}
