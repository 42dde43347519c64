//! A service that runs and in which nothing begins or goes on: told in the log, by `/readyz`, by `kodo doctor` and by
//! `kodo prove`, with who keeps it. And nothing that a worker awaits for itself keeps it from going on.

use std::cell::RefCell;

use kodo_dev::harness::Service;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};

use crate::own_server::OwnServer;
use crate::proof::{assert_invariants_hold, invariant, proof};
use crate::support::{OTHER_INTENT, World, until};
use crate::test_databases::TestDatabases;
use crate::workflow_commands::kodo_on;

async fn logged(world: &World, text: &str) {
    until(text, || async { world.service.log().contains(text) }).await;
}

/// Somebody's transaction that holds a table, and its session's process id.
async fn locked(pool: &PgPool, table: &str) -> (Transaction<'static, Postgres>, i32) {
    let mut holder = pool.begin().await.expect("a transaction");
    let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *holder)
        .await
        .expect("the lock");
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *holder);
    let pid = pid.await.expect("a pid");
    (holder, pid)
}

/// Waits until `/readyz` is as wanted, and returns what it says.
async fn ready_says(service: &Service, what: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let client = service.client();
    let said = RefCell::new(Value::Null);
    until(what, || async {
        let Ok(answer) = client.get("/readyz").await else {
            return false;
        };
        said.replace(answer.json());
        wanted(answer.status, &said.borrow())
    })
    .await;
    said.into_inner()
}

async fn is_ready_again(world: &World) {
    let ready = |status, said: &Value| status == 200 && said["warnings"].is_null();
    ready_says(&world.service, "a ready service", ready).await;
    logged(world, "nothing is waited for any more").await;
}

#[tokio::test]
async fn a_lock_that_lets_nothing_begin_makes_a_running_service_unready_with_who_holds_it() {
    let world = World::apart("stall_ready", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    for (pool, table) in [
        (&world.system, "dbos.workflow_status"),
        (&world.app, "app.runs"),
        (&world.app, "app.run_claims"),
    ] {
        let (holder, pid) = locked(pool, table).await;
        let stalled = |status, said: &Value| status == 503 && said["checks"]["engine"] == "stalled";
        let said = ready_says(&world.service, table, stalled).await;
        let reason = said["reasons"]["engine"].as_str().expect("a reason");
        let named = format!("session {pid} of the server (");
        assert!(reason.contains(&named), "{table}: {reason}");
        assert!(reason.contains("idle in transaction, for "), "{reason}");
        logged(&world, "the workflow engine stands still").await;
        logged(&world, &named).await;
        holder.rollback().await.expect("let go");
        is_ready_again(&world).await;
    }
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_lock_that_holds_up_steps_alone_is_a_warning_of_a_ready_service() {
    let world = World::apart("stall_steps", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let (holder, pid) = locked(&world.app, "app.artifacts").await;
    let run = world.run(&intent).await;
    let warned = |status, said: &Value| {
        let warning = said["warnings"][0].as_str().unwrap_or_default();
        status == 200 && warning.contains(&format!("waits for session {pid} of the server ("))
    };
    ready_says(&world.service, "a warning", warned).await;
    logged(&world, "steps do not go on").await;
    holder.rollback().await.expect("let go");
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    is_ready_again(&world).await;
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_server_that_takes_a_run_and_then_commits_nothing_is_told_with_what_it_waits_for() {
    let server = OwnServer::trusting().await;
    let databases = TestDatabases::none(&server.config, "stall_commit");
    let mut world = World::on(databases, |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let armed = world.options.clone();
    let armed = armed.env("KODO_FAILPOINT", "stop:accept:committed");
    world.restart(&armed).await;
    let asked = {
        let (client, path) = (world.client.clone(), format!("/intents/{intent}/run"));
        tokio::spawn(async move { client.post(&path, "").await })
    };
    let stored = "SELECT count(*) FROM app.runs";
    until("the run's row", || async { world.count(stored).await == 1 }).await;
    // No standby of this name confirms anything: every commit waits for one.
    let set = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'";
    for statement in [set, "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(statement)
            .execute(&world.app)
            .await
            .expect(statement);
    }
    let writers = RefCell::new(Vec::new());
    until("a commit that waits", || async {
        let options = server.config.connect_options("writer");
        let mut writer = PgConnection::connect_with(&options).await.expect("up");
        let writing = tokio::spawn(async move {
            let write = "CREATE SEQUENCE IF NOT EXISTS written; SELECT nextval('written')";
            let _ = sqlx::raw_sql(write).execute(&mut writer).await;
        });
        writers.borrow_mut().push(writing);
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        world.count(waiting).await > 0
    })
    .await;
    world.service.signal(Signal::CONT).expect("a signal");
    let answer = asked.await.expect("a task").expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());

    let stalled = |status, said: &Value| status == 503 && said["checks"]["engine"] == "stalled";
    let said = ready_says(&world.service, "a stalled engine", stalled).await;
    let reason = said["reasons"]["engine"].as_str().expect("a reason");
    assert!(reason.starts_with("the start of run_"), "{reason}");
    assert!(reason.contains("IPC SyncRep"), "{reason}");
    let text = "the database does not answer to the start of a run";
    logged(&world, text).await;
    let reset = "ALTER SYSTEM RESET synchronous_standby_names";
    for statement in [reset, "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(statement)
            .execute(&world.app)
            .await
            .expect(statement);
    }
    for writer in writers.into_inner() {
        writer.await.expect("a writer");
    }
    let run = answer.json()["runId"].as_str().expect("a run").to_owned();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    is_ready_again(&world).await;
    assert_invariants_hold(&world).await;
}

/// A backend of the server that does nothing until this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid).expect("a pid");
        kill_process(pid, Signal::STOP).expect("SIGSTOP");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[tokio::test]
async fn a_start_on_a_connection_that_hangs_is_made_on_another_one() {
    let server = OwnServer::trusting().await;
    let databases = TestDatabases::none(&server.config, "stall_hangs");
    let world = World::on(databases, |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let (holder, _) = locked(&world.system, "dbos.workflow_status").await;
    let run = world.run(&intent).await;
    let starting = || async {
        sqlx::query_scalar::<_, i32>(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO%workflow_status%'",
        )
        .fetch_optional(&world.system)
        .await
        .expect("a pid")
    };
    until("the start's statement", || async {
        starting().await.is_some()
    })
    .await;
    let frozen = Frozen::new(starting().await.expect("the start's statement"));
    holder.rollback().await.expect("let go");
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    drop(frozen);
    let executions = world.count("SELECT count(*) FROM app.run_claims").await;
    assert_eq!(executions, 1);
    assert_invariants_hold(&world).await;
}

/// Connections of launches, which a launch that is done has closed.
const LAUNCHES: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name IN ('kodo-engine', 'kodo-launch')";

#[tokio::test]
async fn a_launch_that_nobody_waits_for_any_more_leaves_no_connection() {
    let mut world = World::apart("stall_launch", |options| options).await;
    world.service.kill9().await.expect("kill");
    let (holder, pid) = locked(&world.system, "dbos.application_versions").await;
    world.service = Service::spawn(&world.options).await.expect("a service");
    world.client = world.service.client();
    for lost in 1..=3 {
        let named = |_, said: &Value| {
            let reason = said["reasons"]["engine"].as_str().unwrap_or_default();
            reason.contains(&format!("session {pid} of the server ("))
        };
        ready_says(&world.service, "a launch that waits", named).await;
        // The slot goes to somebody else while the launch waits.
        let text = "lost the worker slot while launching";
        until(text, || async {
            let given = "UPDATE app.workers SET holder = NULL";
            sqlx::raw_sql(given).execute(&world.app).await.unwrap();
            sqlx::raw_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'kodo-slot'",
            )
            .execute(&world.system)
            .await
            .unwrap();
            world.service.log().matches(text).count() >= lost
        })
        .await;
    }
    holder.rollback().await.expect("let go");
    world.service.ready().await.expect("a ready service");
    until("no connection of a launch", || async {
        let launches: i64 = sqlx::query_scalar(LAUNCHES)
            .fetch_one(&world.system)
            .await
            .unwrap();
        launches == 0
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_run_that_does_not_begin_beside_an_idle_worker_is_told_everywhere() {
    let world = World::new("stall_start").await;
    let intent = world.intent(OTHER_INTENT).await;
    // Nobody can take a claim; everybody can read.
    let mut blocker = world.app.begin().await.unwrap();
    sqlx::query("LOCK TABLE app.run_claims IN EXCLUSIVE MODE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let run = world.run(&intent).await;
    logged(
        &world,
        "a row that somebody keeps locked could not be written",
    )
    .await;
    logged(
        &world,
        "an accepted run does not begin although this worker has room",
    )
    .await;
    let proof = proof(&world).await;
    let stranded = &invariant(&proof, "no_run_stranded")["violations"][0];
    assert_eq!(stranded["subject"], *run, "{proof:#}");
    until("the doctor's finding", || async {
        let told = kodo_on(&world, &["doctor"]).await.stdout;
        told.contains("1 queued") && told.contains("although kodo-0 is idle")
    })
    .await;
    blocker.rollback().await.unwrap();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_lock_on_the_engines_rows_holds_a_run_up_is_told_and_costs_it_nothing() {
    let world = World::new("stall_begin").await;
    let intent = world.intent(OTHER_INTENT).await;
    let mut blocker = world.system.begin().await.unwrap();
    sqlx::query("LOCK TABLE dbos.workflow_status IN EXCLUSIVE MODE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let run = world.run(&intent).await;
    logged(&world, "a step waits for the database").await;
    blocker.rollback().await.unwrap();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    let executions = "SELECT count(*) FROM app.run_claims";
    assert_eq!(world.count(executions).await, 1);
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_lock_that_holds_up_the_sweep_is_told_and_the_sweep_comes_again() {
    let world = World::new("stall_sweep").await;
    let intent = world.intent(OTHER_INTENT).await;
    let mut blocker = world.system.begin().await.unwrap();
    sqlx::query("LOCK TABLE dbos.workflow_status IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let run = world.run(&intent).await;
    logged(&world, "not done within 15s").await;
    blocker.rollback().await.unwrap();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}
