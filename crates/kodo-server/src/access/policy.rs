//! The access policy: refuses the pages of other sites, and requests without the token if one is set; before that, a
//! request whose `Host` is not one valid header.
//!
//! Both checks come before a 404 or 405 is answered, so that only those who pass learn which routes exist.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::token::ApiToken;
use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::http::host;
use crate::route::{Access, Route};

/// What the checks compare with.
pub(crate) struct AccessPolicy {
    origins: Vec<String>,
    token: Option<ApiToken>,
    routes: Vec<Route>,
}

impl AccessPolicy {
    pub(crate) fn new(config: &ServerConfig, routes: Vec<Route>) -> Self {
        Self {
            origins: config.allowed_origins.clone(),
            token: config.api_token.clone(),
            routes,
        }
    }

    /// Checks a request. `path` is that of its route, if there is one.
    fn check(
        &self,
        method: &Method,
        path: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        self.check_origin(method, headers)?;
        match self.needs(method, path) {
            Access::Public => Ok(()),
            Access::Token => self.check_token(headers),
        }
    }

    /// What a request needs. With a method that its path does not have: what the weakest route of the path needs, since
    /// all that it gets is the list of methods. Without a route: the token, since a 404 tells which routes there are.
    fn needs(&self, method: &Method, path: Option<&str>) -> Access {
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let of_path = || self.routes.iter().filter(|route| Some(route.path) == path);
        of_path()
            .find(|route| route.method == method.as_str())
            .map(|route| route.access)
            .or_else(|| of_path().map(|route| route.access).min())
            .unwrap_or(Access::Token)
    }

    /// Refuses requests that a browser sends on behalf of another site.
    ///
    /// Browsers send `Origin` with every cross-site request whose answer a script can read, and with every POST; it
    /// must be one of ours, for every method. `null` (a sandboxed frame, a local file) is not. A request without
    /// `Origin` can still be marked by `Sec-Fetch-Site`: a GET or HEAD is then harmless, being a link that a person
    /// followed, or an embedding whose answer the page cannot read; every other method is refused. Programs send
    /// neither header.
    fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
        if origins.peek().is_some() {
            let ours = origins.all(|origin| {
                let sent = origin.as_bytes();
                self.origins
                    .iter()
                    .any(|our| our.as_bytes().eq_ignore_ascii_case(sent))
            });
            return if ours {
                Ok(())
            } else {
                Err(ApiError::ForbiddenOrigin)
            };
        }
        let reads = *method == Method::GET || *method == Method::HEAD;
        let foreign = headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| site != "same-origin" && site != "none");
        if foreign && !reads {
            return Err(ApiError::ForbiddenOrigin);
        }
        Ok(())
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (sent.next(), sent.next()) else {
            return Err(ApiError::Unauthorized);
        };
        match bearer(value.as_bytes()) {
            Some(sent) if token.is(sent) => Ok(()),
            _ => Err(ApiError::Unauthorized),
        }
    }
}

/// The credentials of `Bearer …`. The scheme's name is case-insensitive (RFC 9110), and one space or more follows it.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer") && rest.starts_with(b" ")).then(|| rest.trim_ascii())
}

/// The middleware.
pub(crate) async fn enforce(
    State(policy): State<Arc<AccessPolicy>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let path = route.map(MatchedPath::as_str);
    let headers = request.headers();
    let checked = host::check(request.version(), request.uri(), headers)
        .and_then(|()| policy.check(request.method(), path, headers));
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::origins::origins_of;

    fn policy(token: Option<&str>) -> AccessPolicy {
        let config = ServerConfig {
            api_token: token.and_then(ApiToken::new),
            allowed_origins: origins_of("127.0.0.1", 3001),
            ..ServerConfig::default()
        };
        let route = |method, path, access| Route {
            method,
            path,
            access,
            inputs: Vec::new(),
            answers: Vec::new(),
        };
        let routes = vec![
            route("GET", "/open", Access::Public),
            route("POST", "/open", Access::Token),
            route("GET", "/closed", Access::Token),
        ];
        AccessPolicy::new(&config, routes)
    }

    /// The verdict on a request; a path that the policy does not know is one without a route.
    fn asked(policy: &AccessPolicy, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::try_from(*name).unwrap();
            sent.append(name, value.parse().unwrap());
        }
        let known = policy.routes.iter().any(|route| route.path == path);
        match policy.check(&method.parse().unwrap(), known.then_some(path), &sent) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn only_our_own_origins_pass_whatever_the_method() {
        let policy = policy(None);
        for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
            for (origin, verdict) in [
                ("http://127.0.0.1:3001", "ok"),
                ("http://LOCALHOST:3001", "ok"),
                ("http://[::1]:3001", "ok"),
                ("https://127.0.0.1:3001", "forbidden origin"),
                ("http://127.0.0.1:3000", "forbidden origin"),
                ("http://127.0.0.1", "forbidden origin"),
                ("http://127.0.0.1:3001.evil.example", "forbidden origin"),
                ("https://evil.example", "forbidden origin"),
                ("null", "forbidden origin"),
                ("", "forbidden origin"),
            ] {
                let sent = asked(&policy, method, "/open", &[("origin", origin)]);
                assert_eq!(sent, verdict, "{method} from {origin:?}");
            }
        }
    }

    #[test]
    fn a_rebound_name_does_not_pass_because_host_and_origin_agree() {
        let headers = [
            ("host", "evil.example:3001"),
            ("origin", "http://evil.example:3001"),
        ];
        assert_eq!(
            asked(&policy(None), "POST", "/intents", &headers),
            "forbidden origin"
        );
    }

    #[test]
    fn two_origins_pass_only_if_both_are_ours() {
        let headers = [
            ("origin", "http://127.0.0.1:3001"),
            ("origin", "https://evil.example"),
        ];
        assert_eq!(
            asked(&policy(None), "GET", "/x", &headers),
            "forbidden origin"
        );
    }

    #[test]
    fn without_an_origin_a_foreign_page_may_link_to_us_and_nothing_else() {
        let policy = policy(None);
        for (method, site, verdict) in [
            ("GET", "cross-site", "ok"),
            ("HEAD", "same-site", "ok"),
            ("POST", "cross-site", "forbidden origin"),
            ("POST", "same-site", "forbidden origin"),
            ("POST", "same-origin", "ok"),
            ("POST", "none", "ok"),
        ] {
            let sent = asked(&policy, method, "/x", &[("sec-fetch-site", site)]);
            assert_eq!(sent, verdict, "{method} {site}");
        }
        assert_eq!(asked(&policy, "POST", "/x", &[]), "ok");
    }

    #[test]
    fn what_is_not_public_wants_the_token_and_so_does_what_has_no_route() {
        let policy = policy(Some("s3cret"));
        for (method, path, verdict) in [
            ("GET", "/open", "ok"),
            ("HEAD", "/open", "ok"),
            ("POST", "/open", "unauthorized"),
            // The answer is a 405, which shows no more than the route does.
            ("DELETE", "/open", "ok"),
            ("GET", "/closed", "unauthorized"),
            ("POST", "/closed", "unauthorized"),
            ("GET", "/none", "unauthorized"),
        ] {
            assert_eq!(
                asked(&policy, method, path, &[]),
                verdict,
                "{method} {path}"
            );
            let headers = [("authorization", "Bearer s3cret")];
            assert_eq!(
                asked(&policy, method, path, &headers),
                "ok",
                "{method} {path}"
            );
        }
    }

    #[test]
    fn the_scheme_is_case_insensitive_and_the_token_is_not() {
        let policy = policy(Some("s3cret"));
        for (value, verdict) in [
            ("Bearer s3cret", "ok"),
            ("bearer s3cret", "ok"),
            ("BEARER  s3cret", "ok"),
            ("Bearer S3cret", "unauthorized"),
            ("Bearer s3cre", "unauthorized"),
            ("Bearer", "unauthorized"),
            ("Bearer ", "unauthorized"),
            ("Bearers3cret", "unauthorized"),
            ("Basic s3cret", "unauthorized"),
            ("s3cret", "unauthorized"),
            ("", "unauthorized"),
        ] {
            let sent = asked(&policy, "GET", "/x", &[("authorization", value)]);
            assert_eq!(sent, verdict, "{value:?}");
        }
        let twice = [
            ("authorization", "Bearer s3cret"),
            ("authorization", "Bearer s3cret"),
        ];
        assert_eq!(asked(&policy, "GET", "/x", &twice), "unauthorized");
    }

    #[test]
    fn a_foreign_page_is_refused_before_its_token_is_looked_at() {
        let headers = [("origin", "null"), ("authorization", "Bearer wrong")];
        assert_eq!(
            asked(&policy(Some("s3cret")), "GET", "/x", &headers),
            "forbidden origin"
        );
    }
}
