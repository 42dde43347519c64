//! The token of `API_TOKEN`.

use std::fmt;

use kodo_contract::sha256_hex;
use subtle::ConstantTimeEq;

/// The token of the API. Only its hash is kept, so that neither a log line nor a core dump of this struct shows it.
#[derive(Clone)]
pub struct ApiToken {
    digest: String,
}

impl ApiToken {
    /// Returns `None` unless the token has at least one character and all are visible ASCII: no client can send another
    /// one in an `Authorization` header.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self {
            digest: sha256_hex(token.as_bytes()),
        })
    }

    /// Whether a client sent this token. Compares hashes, in constant time, so that the time depends neither on the
    /// token nor on its length.
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
}
