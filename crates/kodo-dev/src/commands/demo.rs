//! `kodo-dev demo`: the product's claims, shown with the real binary, real signals and real rows.

mod crash;
mod main_job;
mod work;

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use kodo_dev::harness::{Databases, ServiceOptions};

use crate::environment;
use crate::server::Server;

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

    /// Two databases of a demonstration's own. The service makes them.
    fn own_databases(&self, prefix: &str) -> Databases {
        Databases::named(&self.server.database("postgres"), prefix)
    }
}

/// Runs one of them. Exit code 0 means that what it shows was so; 1 that it was not, or could not be shown.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
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
            main_job::run(args).await?;
            println!();
            work::run(args, true).await?;
            main_job::next();
            Ok(ExitCode::SUCCESS)
        }
        Some(Which::Crash) => crash::run(args).await,
        Some(Which::Work { allow_none }) => work::run(args, allow_none).await,
    }
}

/// A port of the environment, where the caller has set one.
fn exported(name: &str) -> anyhow::Result<Option<u16>> {
    let value = environment::text(name);
    let port = value.map(|value| value.parse().with_context(|| format!("{name}={value}")));
    port.transpose()
}
