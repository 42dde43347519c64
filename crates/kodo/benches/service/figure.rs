//! What is measured of each side in turn: see `against.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use crate::ceiling::Ceiling;
use crate::http::Asking;
use crate::load::{Client, Load};
use crate::pending;
use crate::process::{cpu_time_of, cpu_time_of_postgres, resident_megabytes};
use crate::proxy::Proxy;
use crate::side::{Kind, Live, Protocol, Side};
use crate::stage::DEMO_INTENT;
use crate::wire::{Connection, Request};

/// What one side showed in one round, by the name of the quantity.
pub(crate) type Quantities = BTreeMap<&'static str, f64>;

/// How long a client that polls lets pass between an answer and the next question: one alone asks as often as a timer
/// allows, so that what it waits for is the run; many ask as clients do that share a server.
const POLL_ALONE: Duration = Duration::from_millis(1);
const POLL_AMONG_MANY: Duration = Duration::from_millis(10);

/// How many ask the routes that answer at once, and how many post a burst.
const CLIENTS: usize = 16;

/// How many runs a burst has.
const BURST: usize = 2_000;

/// After a start, for what the service does behind it; and for how long idle statements are counted.
const QUIET: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(20);

/// The commits of a run that its share is a share of: fixed, so that it does not move with the build.
const COMMITS: usize = 8;

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    /// Runs of one tool call, from the POST until the client knows that they succeeded.
    Runs { clients: usize, waits: bool },
    /// Such runs, beside what pgbench commits.
    Share { clients: usize },
    /// Runs that nobody asks for until the last of them has ended.
    Burst,
    /// `GET /runs/:id` of a run that has ended.
    Get,
    /// `POST /intents`.
    Intents,
    /// Resident memory, idle and after runs of 64 clients.
    Memory,
    /// Interrupted runs that a start finds, until the last of them has ended.
    Recover { runs: usize },
    /// Statements of a process that has nothing to do.
    Idle,
}

/// All figures by their names.
pub(crate) const FIGURES: &[(&str, Figure)] = &[
    (
        "runs1",
        Figure::Runs {
            clients: 1,
            waits: false,
        },
    ),
    (
        "runs16",
        Figure::Runs {
            clients: 16,
            waits: false,
        },
    ),
    (
        "runs64",
        Figure::Runs {
            clients: 64,
            waits: false,
        },
    ),
    (
        "wait1",
        Figure::Runs {
            clients: 1,
            waits: true,
        },
    ),
    (
        "wait16",
        Figure::Runs {
            clients: 16,
            waits: true,
        },
    ),
    (
        "wait64",
        Figure::Runs {
            clients: 64,
            waits: true,
        },
    ),
    ("burst", Figure::Burst),
    ("share16", Figure::Share { clients: 16 }),
    ("share64", Figure::Share { clients: 64 }),
    ("get", Figure::Get),
    ("intents", Figure::Intents),
    ("memory", Figure::Memory),
    ("recover500", Figure::Recover { runs: 500 }),
    ("recover5000", Figure::Recover { runs: 5_000 }),
    ("idle", Figure::Idle),
];

impl Figure {
    /// Whether a side takes part.
    pub(crate) fn fits(self, side: &Side) -> bool {
        match (&side.kind, self) {
            (Kind::Pgbench, _) => matches!(self, Self::Share { .. }),
            // Of two builds the older one does not matter for a share.
            (Kind::Kodo, Self::Share { .. }) => side.name == "ours",
            (Kind::Kodo, _) => true,
        }
    }

    /// Measures it once, from the start of the side to its end.
    pub(crate) async fn measure(self, side: &Side) -> anyhow::Result<Quantities> {
        match self {
            Self::Runs { clients, waits } => runs(side, clients, waits).await,
            Self::Share { clients } => match &side.kind {
                Kind::Pgbench => {
                    let ceiling = Ceiling::new(&side.stage, COMMITS).await?;
                    let runs = ceiling.runs_per_second(&side.stage, clients).await?;
                    Ok(Quantities::from([("runsPerSecond", runs)]))
                }
                _ => runs(side, clients, true).await,
            },
            Self::Burst => burst(side).await,
            Self::Get => get(side).await,
            Self::Intents => {
                let live = side.start().await?;
                requests(side, live, Request::post("/intents", DEMO_INTENT)).await
            }
            Self::Memory => memory(side).await,
            Self::Recover { runs } => recover(side, runs).await,
            Self::Idle => idle(side).await,
        }
    }
}

/// A client that starts a run and learns of its end, again and again.
struct Follower {
    connection: Connection,
    run: Request,
    protocol: Protocol,
    /// Whether the answer to a question is held until the run is over.
    waits: bool,
    poll: Duration,
    questions: Arc<AtomicUsize>,
}

impl Client for Follower {
    async fn once(&mut self) -> anyhow::Result<()> {
        let id = self.protocol.id(self.connection.ask(&self.run).await?)?;
        let question = self.protocol.question(&id, self.waits);
        loop {
            if !self.waits {
                tokio::time::sleep(self.poll).await;
            }
            self.questions.fetch_add(1, Ordering::Relaxed);
            let (status, answer) = self.connection.try_ask(&question).await?;
            if self.protocol.is_over(status, answer)? {
                return Ok(());
            }
        }
    }
}

/// So many followers.
async fn followers(
    side: &Side,
    live: &Live,
    clients: usize,
    waits: bool,
    questions: &Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Follower>> {
    let mut followers = Vec::with_capacity(clients);
    for _ in 0..clients {
        let mut connection = Connection::open(live.port).await?;
        followers.push(Follower {
            run: side.protocol().run(&mut connection).await?,
            connection,
            protocol: side.protocol(),
            waits: waits && side.waits,
            poll: if clients == 1 {
                POLL_ALONE
            } else {
                POLL_AMONG_MANY
            },
            questions: Arc::clone(questions),
        });
    }
    Ok(followers)
}

async fn runs(side: &Side, clients: usize, waits: bool) -> anyhow::Result<Quantities> {
    let live = side.start().await?;
    let questions = Arc::default();
    let followers = followers(side, &live, clients, waits, &questions).await?;
    let cpu = cpu_time_of(&live.pids)?;
    let postgres = cpu_time_of_postgres(&side.stage.app).await?;
    let load = Load::put(followers, side.stage.window).await?;
    let cpu = cpu_time_of(&live.pids)? - cpu;
    let postgres = cpu_time_of_postgres(&side.stage.app).await?.zip(postgres);
    live.stop().await?;

    let per_run = |time: Duration| time.as_secs_f64() * 1000.0 / load.total as f64;
    let mut quantities = Quantities::from([
        ("runsPerSecond", load.per_second()),
        ("p50Ms", load.percentile_ms(50)),
        ("p99Ms", load.percentile_ms(99)),
        (
            "questionsPerRun",
            questions.load(Ordering::Relaxed) as f64 / load.total as f64,
        ),
        ("serviceCpuMsPerRun", per_run(cpu)),
    ]);
    if let Some((after, before)) = postgres {
        quantities.insert("postgresCpuMsPerRun", per_run(after - before));
        quantities.insert("cpuMsPerRun", per_run(after - before + cpu));
    }
    Ok(quantities)
}

/// A client that starts its share of a burst.
struct Posting {
    connection: Connection,
    run: Request,
}

async fn burst(side: &Side) -> anyhow::Result<Quantities> {
    let live = side.start().await?;
    let mut posting = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut connection = Connection::open(live.port).await?;
        let run = side.protocol().run(&mut connection).await?;
        clients.push(Posting { connection, run });
    }
    let from = Instant::now();
    for mut client in clients {
        posting.spawn(async move {
            for _ in 0..BURST / CLIENTS {
                client.connection.ask(&client.run).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(posted) = posting.join_next().await {
        posted??;
    }
    let posted = from.elapsed();
    pending::all_over(&side.stage).await?;
    let took = from.elapsed();
    live.stop().await?;
    Ok(Quantities::from([
        ("runsPerSecond", BURST as f64 / took.as_secs_f64()),
        ("postsPerSecond", BURST as f64 / posted.as_secs_f64()),
    ]))
}

/// Asks for a run that has ended, as it is told to whoever asks.
async fn get(side: &Side) -> anyhow::Result<Quantities> {
    let live = side.start().await?;
    let mut connection = Connection::open(live.port).await?;
    let protocol = side.protocol();
    let run = protocol.run(&mut connection).await?;
    let id = protocol.id(connection.ask(&run).await?)?;
    let question = protocol.question(&id, false);
    loop {
        let (status, answer) = connection.try_ask(&question).await?;
        if protocol.is_over(status, answer)? {
            break;
        }
        tokio::time::sleep(POLL_ALONE).await;
    }
    requests(side, live, question).await
}

async fn requests(side: &Side, live: Live, request: Request) -> anyhow::Result<Quantities> {
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(Asking {
            connection: Connection::open(live.port).await?,
            request: request.clone(),
        });
    }
    let load = Load::put(clients, side.stage.window).await?;
    live.stop().await?;
    Ok(Quantities::from([
        ("requestsPerSecond", load.per_second()),
        ("p50Ms", load.percentile_ms(50)),
        ("p99Ms", load.percentile_ms(99)),
    ]))
}

async fn memory(side: &Side) -> anyhow::Result<Quantities> {
    let live = side.start().await?;
    tokio::time::sleep(QUIET).await;
    let idle = resident_megabytes(&live.pids)?;
    let followers = followers(side, &live, 64, false, &Arc::default()).await?;
    Load::put(followers, side.stage.window).await?;
    tokio::time::sleep(QUIET).await;
    let loaded = resident_megabytes(&live.pids)?;
    live.stop().await?;
    Ok(Quantities::from([
        ("idleMegabytes", idle),
        ("loadedMegabytes", loaded),
    ]))
}

async fn recover(side: &Side, count: usize) -> anyhow::Result<Quantities> {
    let runs = pending::interrupt(&side.stage, count).await?;
    let started = Instant::now();
    let live = side.start().await?;
    pending::all_over(&side.stage).await?;
    let took = started.elapsed();
    pending::all_succeeded(&side.stage, &runs).await?;
    live.stop().await?;
    Ok(Quantities::from([("seconds", took.as_secs_f64())]))
}

async fn idle(side: &Side) -> anyhow::Result<Quantities> {
    let proxy = Proxy::start(&side.stage.server).await?;
    let through = [
        ("DB_HOST", "127.0.0.1".to_owned()),
        ("DB_PORT", proxy.port.to_string()),
    ];
    let live = side.start_with(&through).await?;
    tokio::time::sleep(QUIET).await;
    let (statements, from) = (proxy.counts().statements, Instant::now());
    tokio::time::sleep(IDLE).await;
    let statements = proxy.counts().statements - statements;
    let per_second = statements as f64 / from.elapsed().as_secs_f64();
    live.stop().await?;
    ensure!(per_second > 0.0, "a process that asks its database nothing");
    Ok(Quantities::from([("statementsPerSecond", per_second)]))
}
