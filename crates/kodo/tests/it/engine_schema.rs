//! Schema `dbos` as another SDK of DBOS leaves it: worked on with a warning up to the newest that was tried, refused at the
//! start beyond, and never a reason for a running service to stop.

use kodo_dev::harness::Service;
use sqlx::AssertSqlSafe;

use crate::engine_clients::fork;
use crate::interrupted::system;
use crate::program::kodo;
use crate::proof::proof;
use crate::support::{OTHER_INTENT, World, until};
use crate::workflow_commands::kodo_on;

/// What a launch of Python dbos 3.4 does to a schema of version 108, as far as a reader of the tables can see it.
const MIGRATED: &str = "
    CREATE TABLE dbos.workflow_input (
        workflow_uuid TEXT NOT NULL PRIMARY KEY, inputs TEXT,
        retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint);
    CREATE TABLE dbos.workflow_output (
        workflow_uuid TEXT NOT NULL PRIMARY KEY, output TEXT, error TEXT,
        retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint);
    ALTER TABLE dbos.operation_outputs ADD COLUMN retention_timestamp BIGINT NOT NULL
        DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint;
    ALTER TABLE dbos.operation_outputs DROP CONSTRAINT IF EXISTS operation_outputs_workflow_uuid_foreign;
    ALTER TABLE dbos.operation_outputs DROP CONSTRAINT IF EXISTS operation_outputs_workflow_uuid_fkey;
    ALTER TABLE dbos.workflow_status ADD COLUMN creator_xid TEXT DEFAULT NULL";

async fn migrate(world: &World, version: i64) {
    let statements = format!("{MIGRATED}; UPDATE dbos.dbos_migrations SET version = {version}");
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&world.system)
        .await
        .expect("the other SDK's migrations");
}

/// Waits until /readyz, which stays 200, warns of this version. Log, doctor and proof say the same.
async fn warned(world: &World, version: i64) {
    let said = format!("schema dbos has version {version}");
    until("the warning", || async {
        let ready = world.service.admin().get("/readyz").await.unwrap();
        assert_eq!(ready.status, 200, "{}", ready.text());
        let warning = &ready.json()["warnings"][0];
        warning.as_str().is_some_and(|text| text.contains(&said))
    })
    .await;
    until("the warning in the log", || async {
        world.service.log().contains(&said)
    })
    .await;
    let doctor = kodo_on(world, &["doctor"]).await;
    assert!(doctor.stdout.contains(&said), "{}", doctor.stdout);
    let proof = proof(world).await;
    let warning = proof["warning"].as_str().unwrap_or_default();
    assert!(warning.contains(&said), "{proof:#}");
    assert_eq!(proof["holds"], true, "{proof:#}");
}

#[tokio::test]
async fn a_schema_that_another_sdk_has_migrated_is_worked_on_and_told_of() {
    let mut world = World::apart("schema_newer", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    migrate(&world, 125).await;
    warned(&world, 125).await;
    let options = world.options.clone();
    world.restart(&options).await;
    warned(&world, 125).await;
    let after = world.run(&intent).await;
    assert_eq!(world.ended(&after).await["status"], "succeeded");

    // A fork whose input is where the newer SDK puts it. Nobody begins it before it is there.
    world.service.kill9().await.expect("kill");
    let fork = fork(&world, &run, 1).await;
    for statement in [
        "INSERT INTO dbos.workflow_input (workflow_uuid, inputs)
         SELECT workflow_uuid, inputs FROM dbos.workflow_status WHERE workflow_uuid = $1",
        "UPDATE dbos.workflow_status SET inputs = NULL WHERE workflow_uuid = $1",
    ] {
        system(&world, statement, &fork).await;
    }
    world.restart(&options).await;
    until("the fork's success", || async {
        let view = world.client.get(&format!("/runs/{fork}")).await.unwrap();
        view.status == 200 && view.json()["status"] == "succeeded"
    })
    .await;
    let shown = kodo_on(&world, &["workflow", "get", &fork, "-o", "json"]).await;
    assert!(shown.stdout.contains(&run), "its input: {shown:?}");
}

#[tokio::test]
async fn a_schema_that_nobody_has_tried_is_refused_at_the_start_and_accepted_by_its_number() {
    let mut world = World::apart("schema_unknown", |options| options).await;
    migrate(&world, 126).await;
    // The service that runs goes on.
    warned(&world, 126).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    world.service.stop().await.expect("an exit");

    let environment = world.databases().environment();
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([("PORT", "0"), ("ADMIN_PORT", "0")])
        .collect();
    for accepted in ["125", "127"] {
        environment.push(("ENGINE_SCHEMA_ACCEPT", accepted));
        let refused = kodo(&["serve"], &environment).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let way_out = "ENGINE_SCHEMA_ACCEPT=126";
        assert!(refused.stderr.contains(way_out), "{refused:?}");
        environment.pop();
    }
    let accepting = world.options.clone().env("ENGINE_SCHEMA_ACCEPT", 126);
    world.service = Service::start(&accepting).await.expect("an accepted start");
    world.client = world.service.client();
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}
