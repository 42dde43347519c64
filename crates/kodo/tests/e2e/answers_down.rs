//! The answers of a service whose database is away, or not what it should be.

use crate::test_databases::TestDatabases;
use kodo_dev::harness::{Client, Service, ServiceOptions};
use sqlx::PgPool;

use crate::api::{NO_INTENT, NO_RUN};
use crate::door::{Door, Stand};
use crate::exchange::{Ask, Exchanges, ask};
use crate::support::{DEMO_INTENT, World, program, server, until};

/// Every request that needs the database. No bodies: one that is not read closes the connection, and says so.
fn needy() -> Vec<Ask> {
    vec![
        ask("POST /intents"),
        ask(&format!("POST /intents/{NO_INTENT}/run")),
        ask(&format!("GET /runs/{NO_RUN}")),
        ask("POST /crashdemo?wf=x"),
        ask("GET /marks?wf=x"),
    ]
}

/// Without a server: from the start, and after the service has worked.
pub async fn down() -> Exchanges {
    let never = never_there().await;
    never.and(lost().await)
}

async fn never_there() -> Exchanges {
    // A port that was free a moment ago: nothing answers there.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut nowhere = server();
    nowhere.host = "127.0.0.1".to_owned();
    nowhere.port = listener.local_addr().unwrap().port();
    drop(listener);
    let databases = TestDatabases::none(&nowhere, "answers_never")
        .databases
        .clone();
    let options = ServiceOptions::new(program()).envs(databases.environment());
    let service = Service::spawn(&options).await.unwrap();
    let client = service.client();
    let mut noted = Exchanges::default();
    noted
        .note(
            &client,
            "503-readyz-before-the-database",
            ask("GET /readyz"),
        )
        .await;
    noted
        .note_alike(&client, "503-unavailable-before-the-database", needy())
        .await;
    let admin = service.admin();
    noted
        .note(
            &admin,
            "503-engine-before-the-database",
            ask("GET /dbos-healthz"),
        )
        .await;
    noted
}

async fn lost() -> Exchanges {
    let door = Door::before(&server().host, server().port, Stand::Open);
    let world = World::with("answers_lost", |options| options.env("DB_PORT", door.port)).await;
    door.set(Stand::Shut);
    until("/readyz to say that the databases are away", || async {
        let unready = world.client.get("/readyz").await.unwrap();
        let checks = &unready.json()["checks"];
        checks["appDatabase"] == "unreachable" && checks["systemDatabase"] == "unreachable"
    })
    .await;
    let mut noted = Exchanges::default();
    let stored = ask("POST /intents").body(DEMO_INTENT);
    noted
        .note(&world.client, "503-intent-unavailable", stored)
        .await;
    let asks = needy().split_off(1);
    noted
        .note_alike(&world.client, "503-unavailable", asks)
        .await;
    noted
}

/// With a database that is not this version's, or whose rows nobody of ours wrote.
pub async fn broken() -> Exchanges {
    let world = World::new("answers_broken").await;
    let client = &world.client;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let mut noted = Exchanges::default();
    execute(
        &world.app,
        "INSERT INTO app.schema_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'of a later version', true, '', 0)",
    )
    .await;
    noted
        .note(client, "503-readyz-newer-schema", ask("GET /readyz"))
        .await;
    execute(&world.app, "DELETE FROM app.schema_migrations").await;
    noted
        .note(client, "503-readyz-pending-migrations", ask("GET /readyz"))
        .await;

    execute(
        &world.app,
        "UPDATE app.run_steps SET step_id = 'not an id' WHERE step_id = 'plan'",
    )
    .await;
    execute(
        &world.app,
        "ALTER TABLE app.intents RENAME COLUMN goal TO purpose",
    )
    .await;
    execute(
        &world.app,
        "ALTER TABLE app.runs RENAME COLUMN trace_id TO trace",
    )
    .await;
    execute(
        &world.app,
        "ALTER TABLE app.marks RENAME COLUMN step TO mark",
    )
    .await;
    noted
        .note_alike(
            client,
            "500-internal-error",
            vec![
                ask("POST /intents").body(DEMO_INTENT),
                ask(&format!("POST /intents/{intent}/run")),
                ask(&format!("GET /runs/{run}")),
                ask("GET /marks?wf=x"),
            ],
        )
        .await;
    alive(client).await;
    noted
}

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.expect(statement);
}

/// None of this ends the process.
async fn alive(client: &Client) {
    assert_eq!(client.get("/healthz").await.unwrap().status, 200);
}
