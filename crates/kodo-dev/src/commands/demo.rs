//! `kodo-dev demo`: the product's claims, shown with the real binary, real signals and real rows.

mod crash;
mod main_job;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use kodo_dev::harness::{Databases, Service, ServiceOptions};
use tokio::time::Instant;

use crate::environment;
use crate::interrupt::unless_interrupted;
use crate::server::Server;

/// Bound on every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at the rows.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Between the end of the service and the clean-up: a kill takes a moment to be carried out.
const SETTLE: Duration = Duration::from_millis(100);

/// Which demonstration, and where.
///
/// `kodo demo` has the same verbs and more settings. It checks them, puts them into the environment and calls this.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    which: Option<Which>,
    /// Port of the service that is shown; a free one by default
    #[arg(long, global = true)]
    port: Option<u16>,
    /// Port of its admin API; a free one by default
    #[arg(long, global = true)]
    admin_port: Option<u16>,
    #[command(flatten)]
    server: Server,
    /// Product database of the crash demo; the others make databases of their own
    #[arg(long, env = "APP_DB_NAME", default_value = "app_local")]
    app_db_name: String,
    /// System database of the crash demo
    #[arg(long, env = "SYS_DB_NAME", default_value = "dbos_sys")]
    sys_db_name: String,
    /// Durable sleep of the crash demo, in milliseconds
    #[arg(long, env = "WF_SLEEP_MS", default_value_t = 5000)]
    wf_sleep_ms: u32,
}

/// Without one, the main job and then the work.
#[derive(Debug, Subcommand)]
enum Which {
    /// Kill the service between the two effects of the crash demo
    Crash,
    /// Make failing tests pass in a jail, with a kill -9 in the middle
    Work {
        /// Where this machine cannot jail, say so and end well
        #[arg(long)]
        allow_none: bool,
    },
}

impl Args {
    /// A service on ports that the caller chose by flag, otherwise on free ones: an exported `PORT` is another
    /// service's.
    fn service(&self, databases: &Databases) -> anyhow::Result<ServiceOptions> {
        let program = std::env::current_exe()?.with_file_name("kodo");
        let mut options = ServiceOptions::new(program).envs(databases.environment());
        options.port = self.port.unwrap_or(0);
        options.admin_port = self.admin_port.unwrap_or(0);
        Ok(options)
    }

    /// Shows something on databases of its own, which the service makes and which go with it.
    async fn on_own_databases(
        &self,
        prefix: &str,
        show: impl AsyncFnOnce(&Databases) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let databases = Databases::named(&self.server.database("postgres"), prefix);
        let told = unless_interrupted(show(&databases)).await;
        // A service that an interruption has left is killed by now, and what it asked of the server has arrived.
        tokio::time::sleep(SETTLE).await;
        // Whatever happened, nothing stays behind. The demonstration's failure matters more than the clean-up's.
        let dropped = databases.drop().await;
        told?;
        dropped.context("dropping the demo's databases")
    }
}

/// Runs one of them. Exit code 0 means that what it showed was so; 1 that it was not, or could not be shown.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let shown = runtime.block_on(show(args));
    runtime.shutdown_background();
    // Under the name by which people call it.
    Ok(shown.unwrap_or_else(|error| {
        eprintln!("kodo: {error:#}");
        ExitCode::FAILURE
    }))
}

async fn show(args: &Args) -> anyhow::Result<ExitCode> {
    match args.which {
        None => {
            args.on_own_databases("kodo_demo", async |databases| {
                main_job::show(args, databases).await
            })
            .await?;
            println!();
            work::run(args, true).await?;
            main_job::next();
            Ok(ExitCode::SUCCESS)
        }
        Some(Which::Crash) => {
            unless_interrupted(crash::show(args)).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Which::Work { allow_none }) => work::run(args, allow_none).await,
    }
}

/// A port of the environment, where the caller has set one.
fn exported(name: &str) -> anyhow::Result<Option<u16>> {
    let value = environment::text(name);
    let port = value.map(|value| value.parse().with_context(|| format!("{name}={value}")));
    port.transpose()
}

/// Sends a `POST` and returns the id in this field of its answer, which must have this status.
async fn post(
    service: &Service,
    path: &str,
    body: impl Into<String>,
    (status, field): (u16, &str),
) -> anyhow::Result<String> {
    let answer = service.client().post(path, body.into()).await?;
    ensure!(
        answer.status == status,
        "POST {path} answered {}: {}",
        answer.status,
        answer.text()
    );
    let answer = answer.json();
    Ok(answer[field]
        .as_str()
        .context("an id in the answer")?
        .to_owned())
}

/// Waits for rows, bounded.
async fn until(
    limit: Duration,
    what: &str,
    look: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !look().await? {
        if Instant::now() >= deadline {
            bail!("{what} did not come within {limit:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Ends a service as an operator would.
async fn stop(mut service: Service) -> anyhow::Result<()> {
    let exit = service.stop().await?;
    ensure!(exit.success(), "the service ended with {exit} on SIGTERM");
    Ok(())
}
