//! A product database is worked on from one system database: from a second one, its runs would be done again.

use kodo_harness::Service;

use crate::interrupted::FOR_EVER;
use crate::program::{Ended, kodo};
use crate::support::{OTHER_INTENT, World, until};

/// A world with a run that is never over, and the name of a system database that does not exist.
async fn busy(test: &str) -> (World, String) {
    let world = World::apart(test, |options| options.env("SBX_MOCK_DELAY_MS", FOR_EVER)).await;
    let intent = world.intent(OTHER_INTENT).await;
    world.run(&intent).await;
    until("the plan's row", || async {
        world.count("SELECT count(*) FROM app.run_steps").await == 1
    })
    .await;
    // The prefix makes it go with the others of this test.
    let other = format!("{}_2", world.databases().system.database);
    (world, other)
}

/// Runs `kodo` on the world's product database and another system database.
async fn kodo_from(world: &World, system: &str, arguments: &[&str]) -> Ended {
    let environment = world.databases().environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| match name.as_str() {
            "SYS_DB_NAME" => ("SYS_DB_NAME", system),
            name => (name, value.as_str()),
        })
        .chain([("PORT", "0"), ("ADMIN_PORT", "0")])
        .collect();
    kodo(arguments, &environment).await
}

async fn exists(world: &World, database: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(&world.app)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_service_on_a_second_system_database_is_refused_and_nothing_is_made() {
    let (world, other) = busy("sys_second").await;
    let refused = kodo_from(&world, &other, &["serve"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let first = &world.databases().system.database;
    let said = format!(
        "the product database belongs to the system database \"{first}\", not to \"{other}\": its runs would be done \
         twice. Set SYS_DB_NAME={first}, or give up what is recorded there by `kodo db rebind`"
    );
    assert!(refused.stderr.contains(&said), "{refused:?}");
    assert!(!exists(&world, &other).await);
}

#[tokio::test]
async fn the_product_database_is_not_bound_anew_while_somebody_works_on_it() {
    let (mut world, other) = busy("sys_rebind").await;
    let first = world.databases().system.database.clone();
    let product = world.databases().app.database.clone();
    let refused = kodo_from(&world, &other, &["db", "rebind"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = format!("kodo-0 works on {product} from {first}: stop it first");
    assert!(refused.stderr.contains(&said), "{refused:?}");
    assert!(!exists(&world, &other).await);

    world.service.kill9().await.unwrap();
    until("the end of its session", || async {
        kodo_from(&world, &other, &["db", "rebind"]).await.code == Some(0)
    })
    .await;
    let again = kodo_from(&world, &other, &["db", "rebind"]).await;
    assert_eq!(
        again.stdout,
        format!("db: {product} belongs to {other}\n"),
        "{again:?}"
    );
    // The old one is refused from here on.
    let refused = kodo_from(&world, &first, &["serve"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");

    let options = world
        .options
        .clone()
        .env("SYS_DB_NAME", &other)
        .env("SBX_MOCK_DELAY_MS", 0);
    let moved = Service::start(&options).await.unwrap();
    until("the run's end", || async {
        world
            .count("SELECT count(*) FROM app.runs WHERE status = 'succeeded'")
            .await
            == 1
    })
    .await;
    drop(moved);
}

#[tokio::test]
async fn a_system_database_that_was_dropped_holds_nobody_to_it() {
    let (mut world, other) = busy("sys_dropped").await;
    world.service.kill9().await.unwrap();
    let first = world.databases().system.database.clone();
    world.system.close().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "DROP DATABASE \"{first}\" WITH (FORCE)"
    )))
    .execute(&world.app)
    .await
    .unwrap();

    let options = world
        .options
        .clone()
        .env("SYS_DB_NAME", &other)
        .env("SBX_MOCK_DELAY_MS", 0);
    let service = Service::start(&options).await.unwrap();
    until("the run's end", || async {
        world
            .count("SELECT count(*) FROM app.runs WHERE status = 'succeeded'")
            .await
            == 1
    })
    .await;
    drop(service);
}
