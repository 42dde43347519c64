//! What the binary decides about the server.

use std::fmt;
use std::time::Duration;

use kodo_contract::sha256_hex;
use subtle::ConstantTimeEq;

/// How the two APIs behave.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where set, every route but `/healthz` and `/readyz` wants this token.
    pub api_token: Option<ApiToken>,
    /// The origins whose pages may call us, as browsers write them (`http://127.0.0.1:3001`); see [`origins_of`].
    ///
    /// A fixed list and not the request's `Host` header: an attacker who rebinds a name of his own to our address
    /// sends matching `Origin` and `Host`.
    pub allowed_origins: Vec<String>,
    /// How long a request may take once its body is there; then the answer is 503.
    pub request_timeout: Duration,
    /// How long a client may take to send its body; then the answer is 408.
    pub body_timeout: Duration,
}

impl Default for ServerConfig {
    /// No token, no origin, and the timeouts that the contract implies.
    fn default() -> Self {
        Self {
            api_token: None,
            allowed_origins: Vec::new(),
            // The contract promises an answer within 5 s when the database is away.
            request_timeout: Duration::from_millis(4500),
            // Enough for 1 MiB over the slowest link that we care about; a client that needs longer is stuck.
            body_timeout: Duration::from_secs(30),
        }
    }
}

/// The secret of the API. Kept as its hash, so that neither a log line nor a core dump of this struct shows it.
#[derive(Clone)]
pub struct ApiToken {
    digest: String,
}

impl ApiToken {
    /// Takes a token; `None` unless it is made of visible ASCII characters, at least one: nothing else can be sent in
    /// an `Authorization` header, so such a token would lock everyone out.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self {
            digest: sha256_hex(token.as_bytes()),
        })
    }

    /// Whether a client sent this token. Hashes are compared, in constant time, so that the time tells nothing about
    /// the token, its length included.
    pub(crate) fn is(&self, sent: &[u8]) -> bool {
        let sent = sha256_hex(sent);
        self.digest.as_bytes().ct_eq(sent.as_bytes()).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

/// The origins of a page that was loaded from this server: by its address, and by the names of loopback.
#[must_use]
pub fn origins_of(host: &str, port: u16) -> Vec<String> {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut hosts = vec![
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "[::1]".to_owned(),
    ];
    if !hosts.contains(&host) {
        hosts.push(host);
    }
    // Browsers leave the default port out of an origin.
    let suffix = if port == 80 {
        String::new()
    } else {
        format!(":{port}")
    };
    hosts
        .into_iter()
        .map(|host| format!("http://{host}{suffix}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_only_and_never_shows() {
        let token = ApiToken::new("s3cret").unwrap();
        assert!(token.is(b"s3cret"));
        for wrong in ["", "s3cre", "s3cret ", "S3cret", "s3crets"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        for wrong in ["", "a b", "line\n", "schlüssel"] {
            assert!(ApiToken::new(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        assert_eq!(
            origins_of("127.0.0.1", 3001),
            [
                "http://127.0.0.1:3001",
                "http://localhost:3001",
                "http://[::1]:3001"
            ]
        );
        assert_eq!(origins_of("::1", 80).last().unwrap(), "http://[::1]");
        assert_eq!(
            origins_of("fe80::1", 1).last().unwrap(),
            "http://[fe80::1]:1"
        );
        assert_eq!(
            origins_of("kodo.example", 8080).last().unwrap(),
            "http://kodo.example:8080"
        );
    }
}
