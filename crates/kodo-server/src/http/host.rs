//! The `Host` of a request (RFC 9112, section 3.2): one in HTTP/1.1, at most one in HTTP/1.0, and a valid one; and the host
//! of a target that has one (`GET http://host/path`).

use std::net::Ipv6Addr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version, header};

use crate::error::ApiError;

/// Refuses a request whose `Host` is missing, repeated or malformed, or whose target has a malformed host: two programs on
/// its way could disagree about where it goes.
///
/// # Errors
/// [`ApiError::BadHost`].
pub(crate) fn check(version: Version, target: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(authority) = target.authority()
        && !is_valid(authority.as_str().as_bytes())
    {
        return Err(ApiError::BadHost);
    }
    let mut sent = headers.get_all(header::HOST).iter();
    match (sent.next(), sent.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (Some(host), None) if is_valid(host.as_bytes()) => Ok(()),
        _ => Err(ApiError::BadHost),
    }
}

/// `uri-host [":" port]` (RFC 9110, section 4.2.1, which refuses an empty host), with a port that TCP has. "host:" is valid:
/// its port is the default one.
fn is_valid(sent: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(sent) else {
        return false;
    };
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host);
    let port = match rest {
        Some("") => "",
        // A name and a password before the host.
        None => return false,
        Some(rest) => match rest.strip_prefix(':') {
            Some(port) => port,
            None => return false,
        },
    };
    let has_host = match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty(),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    has_host && digits && (port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(version: Version, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        check(version, &Uri::from_static("/"), &headers).is_ok()
    }

    #[test]
    fn one_valid_host_passes() {
        for host in [
            "x",
            "127.0.0.1:3001",
            "[::1]",
            "[::1]:3001",
            "a.b-c_d:",
            "x:65535",
            "x:080",
        ] {
            assert!(passes(Version::HTTP_11, &[host]), "{host:?}");
            assert!(passes(Version::HTTP_10, &[host]), "{host:?}");
        }
        assert!(passes(Version::HTTP_10, &[]));
    }

    #[test]
    fn none_two_and_a_malformed_one_are_refused() {
        assert!(!passes(Version::HTTP_11, &[]));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(!passes(version, &["x", "x"]));
            assert!(!passes(version, &["x", "y"]));
            for host in [
                "",
                ":",
                ":80",
                "a b",
                "a/b",
                "me@x",
                "@x",
                "x:y",
                "x:1:2",
                "x:99999",
                "x:65536",
                "x:-1",
                "x:+1",
                "[::1",
                "::1",
                "[]",
                "[x]",
                "[::1]x",
                "[::1%25lo]",
                "[::1]:99999",
                "a,b?",
                "#",
            ] {
                assert!(!passes(version, &[host]), "{host:?}");
            }
        }
    }

    #[test]
    fn the_host_of_a_target_is_held_to_the_same() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "x".parse().unwrap());
        let passes = |target: &str| {
            let target = target.parse::<Uri>();
            target.is_ok_and(|target| check(Version::HTTP_11, &target, &headers).is_ok())
        };
        assert!(passes("http://x/healthz") && passes("http://[::1]:80/") && passes("x:443"));
        for bad in [
            "http://x:99999/",
            "http://me@x/",
            "http://[x]/",
            "http:///healthz",
        ] {
            assert!(!passes(bad), "{bad}");
        }
    }
}
