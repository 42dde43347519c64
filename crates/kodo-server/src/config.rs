//! The settings of the server, which the binary chooses.

use std::path::PathBuf;
use std::time::Duration;

use crate::access::token::ApiToken;

/// How the two APIs behave.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// If set, every route but `/healthz` and `/readyz` needs this token.
    pub api_token: Option<ApiToken>,
    /// The origins whose pages may call this server, as browsers write them (`http://127.0.0.1:3001`); see
    /// [`origins_of`](crate::origins_of).
    ///
    /// A fixed list and not the request's `Host` header: after DNS rebinding, an attacker's page sends an `Origin` that
    /// matches its `Host`.
    pub allowed_origins: Vec<String>,
    /// How long a request may take after its body was read; then the answer is 503.
    pub request_timeout: Duration,
    /// How long a client may take to send its body; then the answer is 408.
    pub body_timeout: Duration,
    /// The longest upload, in bytes; then the answer is 413. How long it may take in all is not bounded: as long as a
    /// client sends something within [`body_timeout`](Self::body_timeout), it is waited for.
    pub max_upload_bytes: u64,
    /// What all uploads on their way may have together, in bytes; then the answer is 503.
    pub max_uploads_together_bytes: u64,
    /// The folder for uploads on their way, which is made if it is missing.
    pub upload_folder: PathBuf,
}

impl Default for ServerConfig {
    /// No token, no origin, and the timeouts that the contract implies.
    fn default() -> Self {
        Self {
            api_token: None,
            allowed_origins: Vec::new(),
            // The contract promises an answer within 5 s when the database is away, and asking why takes up to one.
            request_timeout: Duration::from_millis(3700),
            // Enough for 1 MiB at 35 KB/s; a client that needs longer is most likely stuck.
            body_timeout: Duration::from_secs(30),
            max_upload_bytes: 1 << 30,
            max_uploads_together_bytes: 4 << 30,
            upload_folder: std::env::temp_dir(),
        }
    }
}
