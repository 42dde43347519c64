//! Whether connections are encrypted.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::PgSslMode;

/// As libpq's `sslmode`. Certificates are found as libpq finds them, by `PGSSLROOTCERT`, `PGSSLCERT` and
/// `PGSSLKEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can.
    #[default]
    Prefer,
    /// Always, with any certificate.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this very host.
    VerifyFull,
}

/// A word that names no [`SslMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sslmode")]
pub struct UnknownSslMode(String);

impl SslMode {
    const ALL: [(&'static str, Self, PgSslMode); 6] = [
        ("disable", Self::Disable, PgSslMode::Disable),
        ("allow", Self::Allow, PgSslMode::Allow),
        ("prefer", Self::Prefer, PgSslMode::Prefer),
        ("require", Self::Require, PgSslMode::Require),
        ("verify-ca", Self::VerifyCa, PgSslMode::VerifyCa),
        ("verify-full", Self::VerifyFull, PgSslMode::VerifyFull),
    ];

    /// The same for the driver.
    pub(crate) fn driver(self) -> PgSslMode {
        let found = Self::ALL.into_iter().find(|(_, mode, _)| *mode == self);
        found.map_or(PgSslMode::Prefer, |(.., driver)| driver)
    }
}

impl FromStr for SslMode {
    type Err = UnknownSslMode;

    fn from_str(name: &str) -> Result<Self, UnknownSslMode> {
        let found = Self::ALL.into_iter().find(|(known, ..)| *known == name);
        found
            .map(|(_, mode, _)| mode)
            .ok_or_else(|| UnknownSslMode(name.to_owned()))
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.into_iter().find(|(_, mode, _)| mode == self);
        f.pad(found.map_or("prefer", |(name, ..)| name))
    }
}
