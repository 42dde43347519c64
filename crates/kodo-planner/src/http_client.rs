//! The HTTP client: TLS by ring and the machine's certificate authorities, the usual proxy variables, no redirects.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are read, in upper or lower case, as curl reads them. This
//! machine's loopback is never asked by a proxy, whatever they say.

use std::error::Error;
use std::io;
use std::time::Duration;

use kodo_contract::is_loopback;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use crate::sanitize::sanitized;

/// How long connecting may take, TLS included. The deadline may well be minutes; a host that does not answer is known
/// sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Many servers close one after 5 s, and a request that arrives in that moment fails.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client for one server. It follows no redirect, so the proxy that is chosen for `url` is right for all requests.
pub(crate) fn client(url: &Url, adapt: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let loopback = url.host_str().is_some_and(is_loopback);
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls(loopback && url.scheme() == "http"))
        .redirect(Policy::none())
        .user_agent(concat!("kodo/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT);
    if loopback {
        builder = builder.no_proxy();
    }
    #[expect(
        clippy::expect_used,
        reason = "building fails for a TLS configuration of another rustls or a bad header, and both are constants here"
    )]
    adapt(builder).build().expect("a client")
}

/// TLS that trusts the machine's certificate authorities, or those in `SSL_CERT_FILE`: a company's own authority counts.
/// If there are none, as in a small container, it trusts Mozilla's.
fn tls(in_the_clear: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    // Reading the authorities takes a while. Only a server on loopback is surely reached without TLS: a proxy may want it.
    if !in_the_clear {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    #[expect(
        clippy::expect_used,
        reason = "ring supports the default protocol versions"
    )]
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Whether the two sides do not agree on TLS: a certificate that is not trusted, or a server that does not speak it.
pub(crate) fn disagrees_on_tls(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| {
        let cause = match cause.downcast_ref::<io::Error>() {
            // It hides what it was made of from `source`.
            Some(io) => io.get_ref().and_then(|it| it.downcast_ref()),
            None => cause.downcast_ref(),
        };
        matches!(
            cause,
            Some(
                rustls::Error::InvalidCertificate(_)
                    | rustls::Error::InvalidMessage(_)
                    | rustls::Error::NoCertificatesPresented
                    | rustls::Error::PeerIncompatible(_)
            )
        )
    })
}

/// The innermost cause: what the system or the protocol said, without the addresses that outer layers add.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    sanitized(&innermost.to_string(), None)
}
