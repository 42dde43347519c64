//! `kodo db …`, and the help that leads there.

use crate::own_server::OwnServer;
use crate::program::kodo;
use crate::support::{DEMO_INTENT, World};
use crate::workflow_commands::kodo_on;

#[tokio::test]
async fn the_short_help_shows_every_command() {
    let help = kodo(&["-h"], &[]).await;
    assert_eq!(help.code, Some(0));
    insta::assert_snapshot!(help.stdout, @"
    An intent becomes a durable run, and kill -9 costs nothing

    Usage: kodo <COMMAND>

    Commands:
      serve      Run the service: product API, admin API and a worker
      dev        Run the service with a database of its own: finds or starts Postgres, migrates, serves
      db         The product database and the development server that holds it
      workflow   Show workflows of the DBOS system database
      artifacts  Artifacts of runs: list them, get them, check their hashes, remove what no run names
      oc         The planner's fixtures: show, check, compare and record them
      prove      Check the rows of both databases against every invariant, also while the service runs
      doctor     Say what is wrong on this machine and what to do about it; works when nothing else does
      sandbox    Run programs in the live sandbox, whatever SBX_MODE is
      demo       See runs survive kill -9, shown from the database
      help       Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Settings: a flag or an environment variable each; `kodo serve --help` lists them.
    ");
    let db = kodo(&["db", "-h"], &[]).await;
    insta::assert_snapshot!(db.stdout, @"
    The product database and the development server that holds it

    Usage: kodo db <COMMAND>

    Commands:
      up         Make a Postgres answer at DB_HOST:DB_PORT: use, start or fetch one
      down       Stop the Postgres that `up` started, and nothing else
      status     Say what answers at DB_HOST:DB_PORT
      migrate    Apply the migrations of schema app
      seed       Insert the seed rows of schema app
      reset      Drop schema app, migrate, seed
      sys-reset  Drop and recreate schema dbos of the system database
      rebind     Bind the product database to another system database (SYS_DB_NAME)
      help       Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Settings: a flag or an environment variable each; `kodo serve --help` lists them.
    ");
}

#[tokio::test]
async fn migrating_again_and_seeding_again_changes_nothing_and_a_reset_starts_anew() {
    let world = World::apart("cli_db", |options| options).await;
    let database = world.databases().app.database.clone();
    for _ in 0..2 {
        let migrated = kodo_on(&world, &["db", "migrate"]).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        assert_eq!(
            migrated.stdout,
            format!("db: schema app of {database} is up to date\n")
        );
        let seeded = kodo_on(&world, &["db", "seed"]).await;
        assert_eq!(seeded.code, Some(0), "{seeded:?}");
        assert_eq!(world.count("SELECT count(*) FROM app.intents").await, 1);
    }
    world.intent(DEMO_INTENT).await;
    // While a service runs on it: its statements find the new tables.
    let reset = kodo_on(&world, &["db", "reset"]).await;
    assert_eq!(reset.code, Some(0), "{reset:?}");
    assert_eq!(
        world.count("SELECT count(*) FROM app.intents").await,
        1,
        "the seed alone"
    );
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn a_reset_of_the_system_database_forgets_workflows_and_keeps_runs() {
    let mut world = World::apart("cli_sys_reset", |options| options).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    assert!(world.service.stop().await.expect("an exit").success());
    let reset = kodo_on(&world, &["db", "sys-reset"]).await;
    assert_eq!(reset.code, Some(0), "{reset:?}");
    let list = kodo_on(&world, &["workflow", "list"]).await;
    assert_eq!(
        (list.code, list.stdout.as_str()),
        (Some(0), "no workflows yet\n")
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM app.runs WHERE status = 'succeeded'")
            .await,
        1
    );
    let options = world.options.clone();
    world.restart(&options).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn a_database_that_a_newer_version_migrated_is_refused_and_left_alone() {
    let world = World::apart("cli_newer", |options| options).await;
    let database = &world.databases().app.database;
    sqlx::query(
        "INSERT INTO app.schema_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'of a later version', true, '', 0)",
    )
    .execute(&world.app)
    .await
    .expect("a row");
    let line = format!(
        "kodo: database \"{database}\" has migration 999, which this version of kodo does not know: \
         run the version that wrote it, or point APP_DB_NAME elsewhere\n"
    );
    let migrated = kodo_on(&world, &["db", "migrate"]).await;
    assert_eq!(
        (migrated.code, migrated.stderr.as_str()),
        (Some(1), line.as_str())
    );
    let served = kodo_on(&world, &["serve", "--port", "0", "--admin-port", "0"]).await;
    assert_eq!(served.code, Some(1), "{served:?}");
    assert!(served.stderr.ends_with(&line), "{served:?}");
}

#[tokio::test]
async fn a_seed_without_a_schema_says_what_comes_first() {
    let world = World::apart("cli_seed", |options| options).await;
    let system = &world.databases().system.database;
    let seeded = kodo_on(&world, &["db", "seed", "--app-db-name", system]).await;
    assert_eq!(seeded.code, Some(1), "{seeded:?}");
    assert!(seeded.stderr.contains("kodo db migrate"), "{seeded:?}");
}

#[tokio::test]
async fn the_status_says_who_answers_and_fails_where_nobody_does() {
    let server = OwnServer::new().await;
    let status = || {
        let output = server
            .command(&["db", "status"])
            .output()
            .expect("kodo db status");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = status();
    assert_eq!(code, Some(1), "{said}");
    server.up();
    let (code, said) = status();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(&format!("127.0.0.1:{}", server.config.port)),
        "{said}"
    );
    server.down();
    assert!(!server.answers());
    assert_eq!(status().0, Some(1));
}
