//! The `Host` of a request (RFC 9112, section 3.2): one in HTTP/1.1, at most one in HTTP/1.0, and a valid one.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version, header};

use crate::error::ApiError;

/// Refuses a request whose `Host` is missing, repeated or malformed: two programs on its way could disagree about where
/// it goes.
///
/// # Errors
/// [`ApiError::BadHost`].
pub(crate) fn check(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut sent = headers.get_all(header::HOST).iter();
    match (sent.next(), sent.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (Some(host), None) if is_valid(host.as_bytes()) => Ok(()),
        _ => Err(ApiError::BadHost),
    }
}

/// `uri-host [":" port]`, or nothing: what a client sends if its target has no host.
fn is_valid(host: &[u8]) -> bool {
    host.is_empty()
        || !host.contains(&b'@')
            && Authority::try_from(host).is_ok_and(|host| {
                let port = host
                    .as_str()
                    .rsplit_once(']')
                    .map_or(host.as_str(), |it| it.1);
                match port.rsplit_once(':') {
                    // "host:" is valid, and its port is the default one.
                    Some((_, port)) => port.bytes().all(|byte| byte.is_ascii_digit()),
                    None => true,
                }
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(version: Version, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        check(version, &headers).is_ok()
    }

    #[test]
    fn one_valid_host_passes() {
        for host in ["x", "127.0.0.1:3001", "[::1]", "[::1]:3001", "a.b-c_d:", ""] {
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
            for host in ["a b", "a/b", "me@x", "x:y", "x:1:2", "[::1", "a,b?", "#"] {
                assert!(!passes(version, &[host]), "{host:?}");
            }
        }
    }
}
