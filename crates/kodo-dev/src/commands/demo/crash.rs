//! Walkthrough B of the course: `kill -9` between the two effects of the crash demo.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kodo_dev::harness::{Databases, Service};
use sqlx::PgPool;
use tokio::time::Instant;

use super::{Args, exported};
use crate::interrupt::unless_interrupted;

/// Beyond the durable sleep itself, how long the marks and the status may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at the rows.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs it on the configured databases, leaving whatever else is in them alone.
pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    unless_interrupted(story(args)).await?;
    Ok(ExitCode::SUCCESS)
}

async fn story(args: &Args) -> anyhow::Result<()> {
    let databases = Databases {
        app: args.server.database(&args.app_db_name),
        system: args.server.database(&args.sys_db_name),
    };
    let mut options = args
        .service(&databases)?
        .env("WF_SLEEP_MS", args.wf_sleep_ms);
    // It works on the caller's databases, so also on the caller's ports.
    options.port = args.port.or(exported("PORT")?).unwrap_or(0);
    options.admin_port = args.admin_port.or(exported("ADMIN_PORT")?).unwrap_or(0);
    let (app, system) = (databases.app_pool(), databases.system_pool());

    let mut service = Service::start(&options).await?;
    println!(
        "crashdemo: service up, pid {}, port {}, admin port {}",
        service.pid().unwrap_or_default(),
        service.port,
        service.admin_port
    );
    let id = format!("crashdemo-{}", kodo_contract::RunId::generate());
    let answer = service
        .client()
        .post(&format!("/crashdemo?wf={id}"), "")
        .await?;
    ensure!(
        answer.status == 202,
        "POST /crashdemo answered {}: {}",
        answer.status,
        answer.text()
    );
    println!("crashdemo: POST /crashdemo?wf={id} -> 202");

    until(PATIENCE, "the first mark", || async {
        Ok(marks(&app, &id).await?.0 == 1)
    })
    .await?;
    let at_kill = marks(&app, &id).await?;
    service.kill9().await?;
    println!(
        "crashdemo: kill -9 with marks s1={} s2={}, workflow {}",
        at_kill.0,
        at_kill.1,
        status(&system, &id).await?
    );

    let mut service = Service::start(&options).await?;
    println!(
        "crashdemo: service restarted, pid {}",
        service.pid().unwrap_or_default()
    );
    let patience = PATIENCE + Duration::from_millis(args.wf_sleep_ms.into());
    let settled = until(patience, "the workflow's end", || async {
        let status = status(&system, &id).await?;
        Ok(!matches!(status.as_str(), "PENDING" | "ENQUEUED"))
    })
    .await;
    if let Err(error) = settled {
        return Err(error.context(format!("the service's log:\n{}", service.log())));
    }
    let (marks, status) = (marks(&app, &id).await?, status(&system, &id).await?);
    println!("crashdemo: app.marks s1={} s2={}", marks.0, marks.1);
    println!("DBOS workflow status: {status}");
    ensure!(
        marks == (1, 1) && status == "SUCCESS",
        "expected marks s1=1 s2=1 and SUCCESS; the service's log:\n{}",
        service.log()
    );
    let exit = service.stop().await?;
    ensure!(exit.success(), "the service ended with {exit} on SIGTERM");
    Ok(())
}

/// Rows of each mark. Counted by hand, not through the service: the database is the witness.
async fn marks(app: &PgPool, id: &str) -> anyhow::Result<(i64, i64)> {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE step = 's1'), count(*) FILTER (WHERE step = 's2')
         FROM app.marks WHERE run_id = $1",
    )
    .bind(id)
    .fetch_one(app)
    .await
    .context("reading app.marks")
}

async fn status(system: &PgPool, id: &str) -> anyhow::Result<String> {
    sqlx::query_scalar("SELECT status FROM dbos.workflow_status WHERE workflow_uuid = $1")
        .bind(id)
        .fetch_one(system)
        .await
        .context("reading dbos.workflow_status")
}

/// Waits for rows, bounded.
pub(super) async fn until<F, Fut>(limit: Duration, what: &str, mut look: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    let deadline = Instant::now() + limit;
    while !look().await? {
        if Instant::now() >= deadline {
            bail!("{what} did not come within {limit:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
