//! The setting that says where artifacts are stored: a folder, or a bucket with a prefix.

use std::fmt;
use std::path::{Path, PathBuf};

use hyper::Uri;
use kodo_contract::is_loopback;

/// Where artifacts are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of an S3-compatible store.
    S3(S3Place),
}

/// A part of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; empty, or without a slash at either end.
    pub prefix: String,
}

/// How to get at a bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Access {
    /// The address of the store; `None` for Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key. Never shown.
    pub secret_access_key: String,
    /// The session token of temporary credentials. Never shown.
    pub session_token: Option<String>,
    /// Where credentials that change are read anew; if it is set, the fields above are not used.
    pub lent: Option<Lent>,
}

/// Credentials that somebody else renews.
#[derive(Clone, PartialEq, Eq)]
pub enum Lent {
    /// A file as AWS's own tools have it, read for every request: whoever rotates the key writes the file.
    File {
        /// The file.
        path: PathBuf,
        /// The section in it, usually `default`.
        profile: String,
    },
    /// What `object_store` renews itself, by the names of its settings (`aws_web_identity_token_file`,
    /// `aws_container_credentials_full_uri`, …).
    Offered(Vec<(&'static str, String)>),
}

impl fmt::Debug for S3Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Access")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("credentials", &"[redacted]")
            .finish()
    }
}

/// Why a place cannot be used. Each text says what is accepted instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Neither a path nor a bucket.
    #[error("an absolute path, file:///PATH or s3://BUCKET/PREFIX")]
    Unknown,
    /// Not a valid bucket, or a prefix that not all stores treat alike.
    #[error(
        "s3://BUCKET or s3://BUCKET/PREFIX, of letters, digits, '-', '_', '.' and, in the prefix, single slashes,"
    )]
    Bucket,
    /// Not an http or https URL of a server.
    #[error(
        "an http or https URL without user name, path and query, such as https://s3.example.com,"
    )]
    Endpoint,
    /// Plain http to another machine: artifacts could be read on the way.
    #[error(
        "https, or http to this machine's loopback (ARTIFACT_STORE_ALLOW_HTTP=true accepts http to others)"
    )]
    InTheClear,
}

impl Place {
    /// Reads a place.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return S3Place::parse(rest).map(Self::S3);
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        let path = Path::new(path);
        if !path.is_absolute() || path.parent().is_none() || text.contains('\0') {
            return Err(PlaceError::Unknown);
        }
        Ok(Self::Folder(path.to_owned()))
    }
}

impl S3Place {
    fn parse(text: &str) -> Result<Self, PlaceError> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !plain(bucket) || !(prefix.is_empty() || prefix.split('/').all(plain)) {
            return Err(PlaceError::Bucket);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl S3Access {
    /// Checks the address of a store.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<String, PlaceError> {
        let uri: Uri = endpoint.parse().map_err(|_| PlaceError::Endpoint)?;
        let host = uri.host().filter(|host| !host.is_empty());
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let (Some(scheme), Some(authority), Some(host), true) =
            (uri.scheme_str(), uri.authority(), host, bare)
        else {
            return Err(PlaceError::Endpoint);
        };
        if authority.as_str().contains('@') {
            return Err(PlaceError::Endpoint);
        }
        match scheme {
            "https" => {}
            "http" if allow_http || is_loopback(host) => {}
            "http" => return Err(PlaceError::InTheClear),
            _ => return Err(PlaceError::Endpoint),
        }
        Ok(format!("{scheme}://{authority}"))
    }
}

/// Whether an address that [`S3Access::check_endpoint`] has accepted is on this machine's loopback.
pub(super) fn is_on_loopback(endpoint: &str) -> bool {
    let uri = endpoint.parse::<Uri>().ok();
    uri.is_some_and(|uri| uri.host().is_some_and(is_loopback))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3(S3Place { bucket, prefix }) if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3(S3Place { bucket, prefix }) => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_part_of_a_bucket() {
        for (text, shown) in [
            ("/var/lib/kodo", "/var/lib/kodo"),
            ("file:///var/lib/kodo", "/var/lib/kodo"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "/",
            "data",
            "./data",
            "file://data",
            "file:///",
            "https://x/y",
            "s3://",
            "s3:///a",
            "s3://b//a",
            "s3://b/a//c",
            "s3://b/../c",
            "s3://b/a b",
            "s3://user:pw@b/a",
            "/a\0b",
        ] {
            assert!(Place::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn http_is_for_loopback_unless_it_is_allowed() {
        let check = S3Access::check_endpoint;
        assert_eq!(
            check("http://127.0.0.1:9000/", false).unwrap(),
            "http://127.0.0.1:9000"
        );
        assert_eq!(
            check("http://[::1]:9000", false).unwrap(),
            "http://[::1]:9000"
        );
        assert_eq!(
            check("https://s3.example.com", false).unwrap(),
            "https://s3.example.com"
        );
        assert_eq!(
            check("http://minio:9000", false),
            Err(PlaceError::InTheClear)
        );
        assert!(check("http://minio:9000", true).is_ok());
        for wrong in [
            "",
            "minio:9000",
            "ftp://x",
            "https://me:pw@x",
            "https://x/bucket",
            "https://x?y",
        ] {
            assert_eq!(check(wrong, true), Err(PlaceError::Endpoint), "{wrong:?}");
        }
    }

    #[test]
    fn credentials_are_in_no_debug_output() {
        let access = S3Access {
            endpoint: None,
            region: "r".into(),
            access_key_id: "canary-id".into(),
            secret_access_key: "canary-key".into(),
            session_token: Some("canary-token".into()),
            lent: Some(Lent::Offered(vec![("x", "canary-uri".into())])),
        };
        assert!(!format!("{access:?}").contains("canary"));
    }
}
