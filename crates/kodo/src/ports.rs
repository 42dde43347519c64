//! Binding: before anything else, so that a second process on the same port fails before it could touch the
//! first one's work.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use tokio::net::TcpListener;

use crate::settings::Settings;

/// Both listeners, bound.
pub(crate) struct Ports {
    /// The product API.
    pub(crate) product: TcpListener,
    /// The admin API.
    pub(crate) admin: TcpListener,
}

impl Ports {
    /// Binds both, or neither.
    ///
    /// # Errors
    /// One line: `EADDRINUSE`, which address, which variable moves it; or that both are one port.
    pub(crate) async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        if let Some(port) = settings.api.port_of_both() {
            bail!(
                "PORT={port} and ADMIN_PORT={port} are one port, and each API needs its own: set one of them to another"
            );
        }
        Ok(Self {
            product: bind(settings.api.host, settings.api.port, "PORT").await?,
            admin: bind(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                settings.api.admin_port,
                "ADMIN_PORT",
            )
            .await?,
        })
    }
}

async fn bind(host: IpAddr, port: u16, variable: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "EADDRINUSE: {address} is taken by another program; set {variable} to a free port"
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address} ({variable}={port})"))
        }
    }
}
