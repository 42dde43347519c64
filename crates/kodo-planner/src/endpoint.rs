//! The URL at which a provider is asked, from what the operator gave.

use std::fmt;

use kodo_contract::is_loopback;
use reqwest::Url;
use thiserror::Error;

/// The URL of a provider's chat completions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why a base URL cannot be used. Each text says what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// It is not an http or https URL.
    #[error("an http or https URL such as http://127.0.0.1:11434/v1 or https://api.openai.com/v1")]
    NotAUrl,
    /// It has a user name, a password, a query or a fragment, which could end up in logs.
    #[error(
        "a URL without user name, password, query and fragment (the key goes into OC_API_KEY or OC_API_KEY_FILE)"
    )]
    Decorated,
    /// It is http to another machine: anybody between could read intents, plans and the key.
    #[error(
        "https, or http to this machine's loopback (OC_ALLOW_HTTP=true accepts http to others)"
    )]
    InTheClear,
}

impl Endpoint {
    /// Reads a base URL in any common spelling: with or without `/v1`, with or without a slash at the end, or the whole URL
    /// of the chat completions.
    ///
    /// A URL without a path gets `/v1`, where OpenAI, Ollama, vLLM and llama.cpp all have their API. Any other path stays.
    ///
    /// # Errors
    ///
    /// [`EndpointError`].
    pub fn parse(base: &str, allow_http: bool) -> Result<Self, EndpointError> {
        let mut url = base_of(base, allow_http)?;
        let path = match url.path().trim_end_matches('/') {
            "" => "/v1/chat/completions".to_owned(),
            whole if whole.ends_with("/chat/completions") => whole.to_owned(),
            other => format!("{other}/chat/completions"),
        };
        url.set_path(&path);
        Ok(Self(url))
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the URL of a server that may be asked.
pub(crate) fn base_of(base: &str, allow_http: bool) -> Result<Url, EndpointError> {
    if base.contains(['?', '#', '@']) {
        return Err(EndpointError::Decorated);
    }
    // The URL standard skips further slashes and takes the path's first part for the host.
    let rest = base.split_once("://").map_or("/", |(_, rest)| rest);
    let url = Url::parse(base).map_err(|_| EndpointError::NotAUrl)?;
    let Some(host) = url.host_str().filter(|_| !rest.starts_with('/')) else {
        return Err(EndpointError::NotAUrl);
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http || is_loopback(host) => Ok(url),
        "http" => Err(EndpointError::InTheClear),
        _ => Err(EndpointError::NotAUrl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_base_url_leads_to_the_chat_completions() {
        for (base, expected) in [
            (
                "http://127.0.0.1:11434",
                "http://127.0.0.1:11434/v1/chat/completions",
            ),
            (
                "http://127.0.0.1:11434/",
                "http://127.0.0.1:11434/v1/chat/completions",
            ),
            (
                "http://localhost:8000/v1",
                "http://localhost:8000/v1/chat/completions",
            ),
            (
                "http://LOCALHOST:8000/v1//",
                "http://localhost:8000/v1/chat/completions",
            ),
            (
                "http://[::1]:8080/v1/",
                "http://[::1]:8080/v1/chat/completions",
            ),
            (
                "https://api.openai.com/v1",
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "https://example.com/api/v1/chat/completions/",
                "https://example.com/api/v1/chat/completions",
            ),
            (
                "https://example.com/v1beta/openai/",
                "https://example.com/v1beta/openai/chat/completions",
            ),
        ] {
            let endpoint = Endpoint::parse(base, false);
            assert_eq!(endpoint.map(|it| it.to_string()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_what_is_accepted() {
        for (base, expected) in [
            ("", EndpointError::NotAUrl),
            ("api.openai.com/v1", EndpointError::NotAUrl),
            ("127.0.0.1:11434", EndpointError::NotAUrl),
            ("ftp://127.0.0.1/", EndpointError::NotAUrl),
            ("http:///v1", EndpointError::NotAUrl),
            ("https://user:word@example.com/v1", EndpointError::Decorated),
            ("https://example.com/v1?key=1", EndpointError::Decorated),
            ("http://example.com/v1", EndpointError::InTheClear),
            ("http://192.168.0.7:8000/v1", EndpointError::InTheClear),
        ] {
            assert_eq!(Endpoint::parse(base, false), Err(expected), "{base}");
        }
        assert!(Endpoint::parse("http://192.168.0.7:8000/v1", true).is_ok());
    }
}
