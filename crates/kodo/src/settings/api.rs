//! The settings of the two HTTP APIs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kodo_contract::is_loopback;

use super::SecretText;
use super::given::{Given, Refusal, refusal};
use super::parsers::{milliseconds, number, parsed};

/// Where the APIs listen, and who may use them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct ApiSettings {
    /// Address of the product API; anything but loopback needs an API token
    #[arg(long, env, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parsed::<IpAddr>("an IP address such as 127.0.0.1 or 0.0.0.0"))]
    pub(crate) host: IpAddr,
    /// Port of the product API; 0 lets the system choose
    #[arg(long, env, default_value = "3001", value_parser = number::<u16>(0, u16::MAX))]
    pub(crate) port: u16,
    /// Port of the admin API, always on loopback; 0 lets the system choose
    #[arg(long, env, value_name = "PORT", default_value = "3002", value_parser = number::<u16>(0, u16::MAX))]
    pub(crate) admin_port: u16,
    /// Bearer token that every route but /healthz and /readyz wants
    #[arg(long, env, value_name = "TOKEN")]
    api_token: Option<SecretText>,
    /// File that holds the token
    #[arg(long, env, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Most clients of the product API that are connected at a time; one more takes the place of an idle one
    #[arg(long, env, value_name = "COUNT", default_value = "1000", value_parser = number::<usize>(1, 100_000))]
    pub(crate) max_connections: usize,
    /// Most bytes of an upload to PUT /artifacts; on its way it is in the folder spool in KODO_DATA_DIR
    #[arg(long, env, value_name = "BYTES", default_value = "1073741824", value_parser = number::<u64>(1, 1 << 40))]
    pub(crate) max_upload_bytes: u64,
    /// Most bytes of all uploads together that are on their way, at least MAX_UPLOAD_BYTES; one that leads beyond gets 503
    #[arg(long, env, value_name = "BYTES", default_value = "4294967296", value_parser = number::<u64>(1, 1 << 40))]
    pub(crate) max_uploads_together_bytes: u64,
    /// How long a shutdown waits for running steps and requests, in milliseconds
    #[arg(long = "drain-grace-ms", env = "DRAIN_GRACE_MS", value_name = "MS", default_value = "10000", value_parser = milliseconds)]
    pub(crate) drain_grace: Duration,
}

impl ApiSettings {
    /// The bearer token, if one is wanted.
    ///
    /// # Errors
    /// If it cannot be used, or if there is none and `HOST` is an address that other machines reach.
    pub(super) fn token(&self, given: &Given) -> Result<Option<String>, Refusal> {
        let token = given.secret(
            "API_TOKEN",
            self.api_token.as_ref(),
            self.api_token_file.as_ref(),
            "a token",
        )?;
        if token.is_none() && !is_loopback(&self.host.to_string()) {
            let reason = format!(
                "HOST={} would serve everybody who can reach this machine: set API_TOKEN or API_TOKEN_FILE, or keep \
                 to a loopback address",
                self.host
            );
            return Err(refusal("HOST", reason));
        }
        Ok(token)
    }

    /// The port that both APIs would need, if it is the same one.
    pub(crate) fn port_of_both(&self) -> Option<u16> {
        let host = self.host.to_canonical();
        // Another address of this machine has ports of its own.
        let meet = host.is_unspecified() || host == IpAddr::V4(Ipv4Addr::LOCALHOST);
        (meet && self.port != 0 && self.port == self.admin_port).then_some(self.port)
    }
}
