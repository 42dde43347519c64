//! A product database is worked on from one system database: from a second one, its runs would be done again.

use kodo_dev::harness::Service;
use kodo_store::{Store, StoreError};
use sqlx::AssertSqlSafe;

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

/// Makes a database by hand: a rebinding makes none.
async fn make(world: &World, database: &str) {
    let create = format!("CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8'");
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&world.app)
        .await
        .unwrap();
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
    make(&world, &other).await;
    let refused = kodo_from(&world, &other, &["db", "rebind"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = format!("kodo-0 works on {product} from {first}: stop it first");
    assert!(refused.stderr.contains(&said), "{refused:?}");

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
    sqlx::raw_sql(AssertSqlSafe(format!(
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

/// Waits until some session of the product database waits for another one's lock.
async fn somebody_waits(world: &World) {
    until("a session waits for a lock", || async {
        world
            .count(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .await
            > 0
    })
    .await;
}

#[tokio::test]
async fn of_two_that_bind_at_the_same_time_one_is_refused() {
    let world = World::apart("sys_race", |options| options).await;
    let databases = world.databases();
    let store = Store::new(&databases.app, 4);
    until("the binding", || async {
        world
            .count("SELECT count(*) FROM app.instance WHERE system_database IS NOT NULL")
            .await
            == 1
    })
    .await;
    let forget =
        "UPDATE app.instance SET server = NULL, product_database = NULL, system_database = NULL";
    sqlx::query(forget).execute(&world.app).await.unwrap();

    // One has its turn, the other comes too late to know of it.
    let other = databases.system.with_database("postgres");
    let turn = store.turn_to_bind().await.unwrap();
    let late = {
        let store = store.clone();
        tokio::spawn(async move { store.bind(&other).await })
    };
    somebody_waits(&world).await;
    turn.bind(&databases.system).await.unwrap();
    let refused = late.await.unwrap().unwrap_err();
    assert!(
        matches!(&refused, StoreError::OtherSystem { bound, .. } if *bound == databases.system.database),
        "{refused}"
    );

    // A worker that has its slot, and makes sure while somebody changes the binding.
    let turn = store.turn_to_bind().await.unwrap();
    let worker = {
        let (store, system) = (store.clone(), databases.system.clone());
        tokio::spawn(async move { store.confirm_binding(&system).await })
    };
    somebody_waits(&world).await;
    turn.bind(&databases.system.with_database("postgres"))
        .await
        .unwrap();
    let refused = worker.await.unwrap().unwrap_err();
    assert!(
        matches!(&refused, StoreError::OtherSystem { bound, .. } if bound == "postgres"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_slot_whose_holder_may_live_is_waited_for_before_anything_is_bound_anew() {
    let (mut world, other) = busy("sys_may_live").await;
    world.service.kill9().await.unwrap();
    // As on another machine, where nobody here can tell.
    sqlx::query("UPDATE app.workers SET holder = 'elsewhere'")
        .execute(&world.app)
        .await
        .unwrap();
    make(&world, &other).await;
    let begun = std::time::Instant::now();
    until("the end of its session", || async {
        kodo_from(&world, &other, &["db", "rebind"]).await.code == Some(0)
    })
    .await;
    // TAKEOVER_AFTER: by then a holder without its session has stopped.
    assert!(begun.elapsed().as_secs() >= 10);
    let held = "SELECT count(*) FROM app.workers WHERE holder IS NOT NULL";
    assert_eq!(
        world.count(held).await,
        0,
        "whoever thought to have a slot finds it gone"
    );
}

#[tokio::test]
async fn a_copy_of_a_product_database_does_not_work_on_the_system_database_of_its_original() {
    let (mut world, other) = busy("sys_copy").await;
    assert!(world.service.stop().await.is_ok());
    let original = world.databases().app.database.clone();
    let copy = format!("{original}_2");
    world.app.close().await;
    let mut admin = crate::support::server().connect("kodo-it").await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "CREATE DATABASE \"{copy}\" TEMPLATE \"{original}\""
    )))
    .execute(&mut admin)
    .await
    .unwrap();

    let options = world.options.clone().env("APP_DB_NAME", &copy);
    let refused = Service::start(&options).await.err().unwrap().to_string();
    let said = format!(
        "the product database is a copy of \"{original}\", and \"{}\" is the system database of that one: set \
         SYS_DB_NAME to another one",
        world.databases().system.database
    );
    assert!(refused.contains(&said), "{refused}");

    let options = options
        .env("SYS_DB_NAME", &other)
        .env("SBX_MOCK_DELAY_MS", 0);
    let apart = Service::start(&options).await.unwrap();
    drop(apart);
    // The original is as it was.
    world.service = Service::start(&world.options).await.unwrap();
}
