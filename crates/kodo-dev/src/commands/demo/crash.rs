//! Walkthrough B of the course: `kill -9` between the two effects of the crash demo.

use std::time::Duration;

use anyhow::{Context, ensure};
use kodo_dev::harness::{Databases, Service};
use sqlx::PgPool;

use super::{Args, PATIENCE, exported, post, stop, until};

/// Shows it on the configured databases, leaving whatever else is in them alone.
pub(super) async fn show(args: &Args) -> anyhow::Result<()> {
    let databases = Databases {
        app: args.server.database(&args.app_db_name),
        system: args.server.database(&args.sys_db_name),
        artifacts: None,
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
    let path = format!("/crashdemo?wf={id}");
    post(&service, &path, "", (202, "workflowId")).await?;
    println!("crashdemo: POST {path} -> 202");

    until(PATIENCE, "the first mark", async || {
        Ok(marks(&app, &id).await?.0 == 1)
    })
    .await?;
    let (s1, s2) = marks(&app, &id).await?;
    service.kill9().await?;
    println!(
        "crashdemo: kill -9 with marks s1={s1} s2={s2}, workflow {}",
        status(&system, &id).await?
    );

    let service = Service::start(&options).await?;
    println!(
        "crashdemo: service restarted, pid {}",
        service.pid().unwrap_or_default()
    );
    // Beyond the durable sleep itself.
    let patience = PATIENCE + Duration::from_millis(args.wf_sleep_ms.into());
    until(patience, "the workflow's end", async || {
        let status = status(&system, &id).await?;
        Ok(!matches!(status.as_str(), "PENDING" | "ENQUEUED"))
    })
    .await
    .with_context(|| format!("the service's log:\n{}", service.log()))?;
    let ((s1, s2), status) = (marks(&app, &id).await?, status(&system, &id).await?);
    println!("crashdemo: app.marks s1={s1} s2={s2}");
    println!("DBOS workflow status: {status}");
    ensure!(
        (s1, s2) == (1, 1) && status == "SUCCESS",
        "expected marks s1=1 s2=1 and SUCCESS; the service's log:\n{}",
        service.log()
    );
    stop(service).await
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
