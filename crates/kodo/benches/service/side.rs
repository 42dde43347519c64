//! Who is measured beside whom: this build, another one, pgbench.

use anyhow::{Context, bail};
use kodo_dev::harness::Service;

use crate::stage::{Stage, stop, store_intent, text};
use crate::wire::{Connection, Request};

/// How long an answer is held for a client that waits, in seconds.
const HELD: u32 = 30;

/// One side, with databases of its own.
#[derive(Debug)]
pub(crate) struct Side {
    /// What it is called in a figure.
    pub(crate) name: &'static str,
    /// Whether it can hold an answer until the run is over. If not, its clients poll where others wait.
    pub(crate) waits: bool,
    /// Its databases, and the program that it starts.
    pub(crate) stage: Stage,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a side is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A build of this service.
    Kodo,
    /// The same commits without a service.
    Pgbench,
}

impl Side {
    /// Makes its databases, which takes time that is nobody's figure.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        stop(Service::start(&self.stage.service()).await?).await
    }

    /// Starts it; ready when this returns.
    pub(crate) async fn start(&self) -> anyhow::Result<Live> {
        self.start_with(&[]).await
    }

    /// The same with further variables of the environment.
    pub(crate) async fn start_with(&self, variables: &[(&str, String)]) -> anyhow::Result<Live> {
        match self.kind {
            Kind::Kodo => {
                let mut options = self.stage.service();
                for (name, value) in variables {
                    options = options.env(name, value);
                }
                let service = Service::start(&options).await?;
                Ok(Live {
                    port: service.port,
                    pids: vec![service.pid().context("the service is gone")?],
                    service,
                })
            }
            Kind::Pgbench => bail!("pgbench is no service"),
        }
    }

    /// How it is talked to.
    pub(crate) fn protocol(&self) -> Protocol {
        Protocol::Kodo
    }
}

/// A side that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Live {
    /// Where it answers.
    pub(crate) port: u16,
    /// Its processes.
    pub(crate) pids: Vec<u32>,
    service: Service,
}

impl Live {
    /// Ends it, which must be in peace.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        stop(self.service).await
    }
}

/// How a side is asked for a run and for its end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// `docs/api.md`.
    Kodo,
}

impl Protocol {
    /// The request that starts a run.
    pub(crate) async fn run(self, connection: &mut Connection) -> anyhow::Result<Request> {
        match self {
            Self::Kodo => store_intent(connection).await,
        }
    }

    /// The id in the answer to that request.
    pub(crate) fn id(self, answer: &[u8]) -> anyhow::Result<String> {
        match self {
            Self::Kodo => text(answer, "runId"),
        }
    }

    /// The request that asks for a run's end.
    pub(crate) fn question(self, id: &str, waits: bool) -> Request {
        match (self, waits) {
            (Self::Kodo, false) => Request::get(&format!("/runs/{id}")),
            (Self::Kodo, true) => Request::get(&format!("/runs/{id}?wait={HELD}")),
        }
    }

    /// Whether an answer to that request says that the run has succeeded.
    pub(crate) fn is_over(self, status: u16, answer: &[u8]) -> anyhow::Result<bool> {
        let text = String::from_utf8_lossy(answer);
        match self {
            // `{"runId":…,"status":…`: the first status is that of the run.
            Self::Kodo if status == 200 => {
                let (_, rest) = text.split_once(r#""status":""#).context("no status")?;
                match rest.split('"').next() {
                    Some("succeeded") => Ok(true),
                    Some("queued" | "running") => Ok(false),
                    _ => bail!("the run ended otherwise: {text}"),
                }
            }
            Self::Kodo => bail!("answered {status}: {text}"),
        }
    }
}
