//! What our migrations leave behind, by the catalogue of the database that they ran on: schema `app` and nothing else.
//!
//! `policy:ddl` reads the migrations; this looks at what they did, however they did it, and what rights they need.

use crate::test_databases::TestDatabases;
use sqlx::PgPool;

use crate::program::kodo;
use crate::support::{World, program, server};
use crate::workflow_commands::kodo_on;

/// Everything in the catalogue that is not of schema `app` and not Postgres's own, as text without object numbers, so
/// that two databases can be compared.
const OUTSIDE_OF_APP: &str = "
    WITH ours AS (
        SELECT oid, nspname FROM pg_namespace
        WHERE nspname <> 'app' AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
    )
    SELECT format('schema %s %s %s', nspname, n.nspacl, obj_description(n.oid, 'pg_namespace'))
    FROM ours JOIN pg_namespace n USING (oid, nspname)
    UNION ALL
    SELECT format('relation %s.%s %s %s %s %s', nspname, relname, relkind, relacl, reloptions,
                  obj_description(c.oid, 'pg_class'))
    FROM pg_class c JOIN ours ON ours.oid = relnamespace
    UNION ALL
    SELECT format('column %s.%s.%s %s %s %s %s', nspname, relname, attname, format_type(atttypid, atttypmod), attnotnull,
                  attacl, pg_get_expr(adbin, adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN ours ON ours.oid = relnamespace
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(indexrelid))
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN ours ON ours.oid = relnamespace
    UNION ALL
    SELECT format('constraint %s.%s %s', nspname, conname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN ours ON ours.oid = connamespace
    UNION ALL
    SELECT format('trigger %s', pg_get_triggerdef(t.oid))
    FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid JOIN ours ON ours.oid = relnamespace WHERE NOT tgisinternal
    UNION ALL
    SELECT format('function %s.%s %s %s %s', nspname, proname, pg_get_function_arguments(p.oid), prosrc, proacl)
    FROM pg_proc p JOIN ours ON ours.oid = pronamespace
    UNION ALL
    SELECT format('type %s.%s', nspname, typname) FROM pg_type JOIN ours ON ours.oid = typnamespace
    UNION ALL
    SELECT format('extension %s', extname) FROM pg_extension
    UNION ALL
    SELECT format('event trigger %s', evtname) FROM pg_event_trigger
    UNION ALL
    SELECT format('setting %s', setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY 1";

async fn outside_of_app(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(OUTSIDE_OF_APP)
        .fetch_all(pool)
        .await
        .expect("the catalogue")
}

#[tokio::test]
async fn in_a_shared_database_our_migrations_leave_the_engines_schema_as_the_engine_made_it() {
    let shared = World::new("catalogue_shared").await;
    // Here the engine had a database to itself.
    let apart = World::apart("catalogue_apart", |options| options).await;
    let engine_alone = outside_of_app(&apart.system).await;
    assert!(
        engine_alone
            .iter()
            .any(|line| line.starts_with("relation dbos.workflow_status ")),
        "{engine_alone:#?}"
    );
    similar(&outside_of_app(&shared.app).await, &engine_alone);
    // And where the product has one to itself, there is nothing but its own.
    let product_alone = outside_of_app(&apart.app).await;
    assert!(
        !product_alone.iter().any(|line| line.contains("dbos")),
        "{product_alone:#?}"
    );
    assert!(
        !product_alone
            .iter()
            .any(|line| line.starts_with("relation ")),
        "{product_alone:#?}"
    );
}

#[tokio::test]
async fn dropping_and_migrating_anew_does_not_touch_the_engines_schema() {
    let world = World::new("catalogue_reset").await;
    let before = outside_of_app(&world.app).await;
    let reset = kodo_on(&world, &["db", "reset"]).await;
    assert_eq!(reset.code, Some(0), "{reset:?}");
    similar(&outside_of_app(&world.app).await, &before);
}

#[tokio::test]
async fn migrations_and_seeds_need_no_right_on_the_engines_schema() {
    let databases = TestDatabases::one(&program(), &server(), "catalogue_role").await;
    let databases = databases.expect("databases");
    let (pool, database) = (
        databases.databases.app_pool(),
        &databases.databases.app.database,
    );
    let role = format!("kodo_it_migrates_{}", std::process::id());
    let statement = format!(
        "DROP SCHEMA app CASCADE; CREATE ROLE {role} LOGIN PASSWORD 'migrates';
         GRANT CREATE ON DATABASE {database} TO {role}"
    );
    run(&pool, statement).await;
    let environment = databases.databases.environment();
    let mut variables: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    variables.extend([("DB_USER", role.as_str()), ("DB_PASSWORD", "migrates")]);
    let migrated = kodo(&["db", "migrate"], &variables).await;
    let seeded = kodo(&["db", "seed"], &variables).await;
    let has_right: bool = sqlx::query_scalar("SELECT has_schema_privilege($1, 'dbos', 'USAGE')")
        .bind(&role)
        .fetch_one(&pool)
        .await
        .expect("a right");
    run(&pool, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert_eq!(seeded.code, Some(0), "{seeded:?}");
    assert!(!has_right, "the role had a right on schema dbos");
}

async fn run(pool: &PgPool, statement: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(pool)
        .await
        .expect("a statement");
}

/// Equal, and where not, only the lines that differ.
fn similar(found: &[String], expected: &[String]) {
    let more: Vec<_> = found
        .iter()
        .filter(|line| !expected.contains(line))
        .collect();
    let less: Vec<_> = expected
        .iter()
        .filter(|line| !found.contains(line))
        .collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "changed outside of schema app: now there {more:#?}, gone {less:#?}"
    );
}
