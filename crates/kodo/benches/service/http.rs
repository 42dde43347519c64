//! Requests a second of the three routes that clients ask most.

use kodo_dev::harness::Service;
use serde_json::json;

use crate::figures::{Figures, rounded, say};
use crate::load::{Client, Load};
use crate::runs::Ends;
use crate::stage::{DEMO_INTENT, Stage, store_intent};
use crate::wire::{Connection, Request};

/// Keep-alive connections, each with one request under way.
const CLIENTS: usize = 16;

/// A client that sends the same request again and again.
pub(crate) struct Asking {
    /// Its connection.
    pub(crate) connection: Connection,
    /// What it sends.
    pub(crate) request: Request,
}

impl Client for Asking {
    async fn once(&mut self) -> anyhow::Result<()> {
        self.connection.ask(&self.request).await?;
        Ok(())
    }
}

/// Measures the routes, one after the other.
pub(crate) async fn measure(
    stage: &Stage,
    service: &Service,
    figures: &Figures,
) -> anyhow::Result<()> {
    // A run that is over, with the steps and artifacts of the demo intent.
    let ends = Ends::follow(service);
    let mut connection = Connection::open(service.port).await?;
    let run_it = store_intent(&mut connection).await?;
    let run = ends.run(&mut connection, &run_it).await?;

    for (route, request) in [
        ("GET /healthz", Request::get("/healthz")),
        ("POST /intents", Request::post("/intents", DEMO_INTENT)),
        ("GET /runs/:id", Request::get(&format!("/runs/{run}"))),
    ] {
        say(&format!("{route}, {CLIENTS} clients"));
        let mut clients = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS {
            clients.push(Asking {
                connection: Connection::open(service.port).await?,
                request: request.clone(),
            });
        }
        let load = Load::put(clients, stage.window).await?;
        figures.print(&json!({
            "figure": "http",
            "route": route,
            "clients": CLIENTS,
            "requests": load.counted(),
            "requestsPerSecond": rounded(load.per_second()),
            "p50Ms": rounded(load.percentile_ms(50)),
            "p99Ms": rounded(load.percentile_ms(99)),
        }))?;
    }
    Ok(())
}
