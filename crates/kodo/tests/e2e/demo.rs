//! The demo intent of the course, carried out in several places at once: what it shows and what it leaves in the
//! databases must not depend on where that is.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::test_databases::TestDatabases;
use kodo_store::DatabaseConfig;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;

use crate::api::{committed_fixtures, got};
use crate::dump::{Volatile, dump};
use crate::exchange::start_demo;
use crate::golden_folder::diff;
use crate::goldens::Shown;
use crate::normalise::{Normaliser, laid_out};
use crate::support::{World, server, text};

/// Columns of the two databases whose values differ between any two runs and are neither times nor ids.
const VOLATILE: &[(&str, Volatile)] = &[
    // Ids of the server and of the two databases.
    ("app.instance.product_database", Volatile::Numbers),
    ("app.instance.server", Volatile::Numbers),
    ("app.instance.system_database", Volatile::Numbers),
    // How long a migration took, in nanoseconds.
    ("app.schema_migrations.execution_time", Volatile::Numbers),
    // Boot id, pid namespace, pid and start time of the process that holds the slot.
    ("app.workers.holder", Volatile::Numbers),
    ("dbos.application_versions.created_at", Volatile::EpochMs),
    (
        "dbos.application_versions.version_timestamp",
        Volatile::EpochMs,
    ),
    (
        "dbos.operation_outputs.completed_at_epoch_ms",
        Volatile::EpochMs,
    ),
    (
        "dbos.operation_outputs.started_at_epoch_ms",
        Volatile::EpochMs,
    ),
    ("dbos.workflow_status.completed_at", Volatile::EpochMs),
    ("dbos.workflow_status.created_at", Volatile::EpochMs),
    ("dbos.workflow_status.updated_at", Volatile::EpochMs),
];

/// Where a service and its databases are.
struct Place {
    name: &'static str,
    /// Of the service: `TZ`, `LC_ALL`, `LANG`.
    environment: &'static [(&'static str, &'static str)],
    /// Of both databases, for every session that does not say otherwise.
    settings: &'static [(&'static str, &'static str)],
    /// Collation of both databases, where the server has it.
    icu_locale: Option<&'static str>,
}

static PLACES: [Place; 3] = [
    Place {
        name: "here",
        environment: &[],
        settings: &[],
        icu_locale: None,
    },
    // A day ahead of most, and it writes numbers and dates the other way around.
    Place {
        name: "kiritimati",
        environment: &[
            ("TZ", "Pacific/Kiritimati"),
            ("LC_ALL", "de_DE.UTF-8"),
            ("LANG", "de_DE.UTF-8"),
        ],
        settings: &[
            ("timezone", "Pacific/Kiritimati"),
            ("datestyle", "German, DMY"),
            ("intervalstyle", "sql_standard"),
            ("bytea_output", "escape"),
            ("extra_float_digits", "-15"),
            ("lc_numeric", "C.utf8"),
            ("lc_time", "C.utf8"),
            ("lc_monetary", "C.utf8"),
        ],
        icu_locale: Some("de-DE"),
    },
    // Half an hour off, and upper and lower case of `i` are not what they are elsewhere.
    Place {
        name: "st_johns",
        environment: &[
            ("TZ", "America/St_Johns"),
            ("LC_ALL", "tr_TR.UTF-8"),
            ("LANGUAGE", "tr"),
        ],
        settings: &[
            ("timezone", "America/St_Johns"),
            ("datestyle", "SQL, MDY"),
            ("intervalstyle", "postgres_verbose"),
        ],
        icu_locale: Some("tr-TR"),
    },
];

/// A demo run that has succeeded.
struct Demo {
    world: World,
    run: String,
    began: SystemTime,
}

impl Demo {
    /// A service in that place, ready, and when its making began.
    async fn prepare(place: &Place) -> (SystemTime, World) {
        let began = SystemTime::now();
        let databases = place.databases(&format!("golden_{}", place.name)).await;
        let world = World::on(databases, |options| {
            let environment = place.environment.iter();
            environment.fold(committed_fixtures(options), |options, (name, value)| {
                options.env(name, value)
            })
        })
        .await;
        (began, world)
    }

    async fn run(began: SystemTime, world: World) -> Self {
        let (_, accepted) = start_demo(&world.client).await;
        let run = text(&accepted, "runId");
        assert_eq!(world.ended(&run).await["status"], "succeeded");
        Self { world, run, began }
    }

    /// Knows what is volatile of this demo. Made when everything has been read, so that all of it is in its span.
    async fn normaliser(&self) -> Normaliser {
        let instance: String = sqlx::query_scalar("SELECT id FROM app.instance")
            .fetch_one(&self.world.app)
            .await
            .unwrap();
        Normaliser::new(self.began..=SystemTime::now()).literal(&instance, "<instance>")
    }

    async fn view(&self) -> String {
        let view = got(&self.world, &format!("/runs/{}", self.run)).await;
        assert!(view.text().contains(&self.run), "{}", view.text());
        laid_out(&self.normaliser().await.text(&view.text())) + "\n"
    }

    async fn rows(&self) -> [String; 2] {
        let databases = self.world.databases();
        let mut normaliser = self.normaliser().await;
        let app = dump(&databases.app, VOLATILE, Some(&mut normaliser))
            .await
            .unwrap();
        let system = dump(&databases.system, VOLATILE, Some(&mut normaliser))
            .await
            .unwrap();
        let ruled: BTreeSet<&str> = app
            .ruled
            .iter()
            .chain(&system.ruled)
            .map(String::as_str)
            .collect();
        let idle: Vec<&str> = VOLATILE
            .iter()
            .map(|(column, _)| *column)
            .filter(|column| !ruled.contains(column))
            .collect();
        assert!(
            idle.is_empty(),
            "rules for columns that have no value: {idle:?}"
        );
        [app.text, system.text]
    }
}

impl Place {
    /// Two databases with this place's settings, empty; where there is nothing to set, the service makes them itself.
    /// No clones of a template: what its migrations left in there is from another time.
    async fn databases(&self, test: &str) -> TestDatabases {
        let databases = TestDatabases::none(&server(), test);
        if self.settings.is_empty() {
            return databases;
        }
        let mut admin = connect(&server()).await;
        // Servers may be built without ICU; then the settings alone have to do.
        let icu: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i')")
                .fetch_one(&mut admin)
                .await
                .unwrap();
        let collation = match self.icu_locale {
            Some(locale) if icu => format!("LOCALE_PROVIDER icu ICU_LOCALE '{locale}'"),
            _ => String::new(),
        };
        for database in [&databases.databases.app, &databases.databases.system] {
            let name = &database.database;
            // A killed test of this name may have left it.
            let mut statements = vec![
                format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"),
                format!(
                    "CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' {collation} LC_COLLATE 'C' LC_CTYPE 'C'"
                ),
            ];
            for (setting, value) in self.settings {
                statements.push(format!(
                    "ALTER DATABASE \"{name}\" SET {setting} = '{value}'"
                ));
            }
            for statement in statements {
                let done = sqlx::raw_sql(AssertSqlSafe(statement.clone()))
                    .execute(&mut admin)
                    .await;
                // Not every system has that locale; `C` it has.
                if let Err(error) = done {
                    assert!(statement.contains("C.utf8"), "{statement}: {error}");
                }
            }
        }
        // The engine's and our own sessions may say otherwise; the database does not.
        let set: Vec<String> = sqlx::query_scalar(
            "SELECT unnest(s.setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             WHERE d.datname = $1",
        )
        .bind(&databases.databases.app.database)
        .fetch_all(&mut admin)
        .await
        .unwrap();
        for (setting, value) in self.settings.iter().filter(|(_, value)| *value != "C.utf8") {
            let set = set.iter().find_map(|set| {
                set.to_lowercase()
                    .strip_prefix(&format!("{setting}="))
                    .map(str::to_owned)
            });
            assert_eq!(
                set.as_deref(),
                Some(value.to_lowercase().as_str()),
                "{setting}"
            );
        }
        admin.close().await.unwrap();
        databases
    }
}

async fn connect(database: &DatabaseConfig) -> PgConnection {
    let options = database.connect_options("kodo-e2e");
    PgConnection::connect_with(&options).await.unwrap()
}

/// The goldens of the view and of both databases: what every place shows and has.
pub async fn all() -> Vec<Shown> {
    // Started one after the other, since migrating takes a machine's breath; then they work at once.
    let mut worlds = Vec::new();
    for place in &PLACES {
        worlds.push(Demo::prepare(place).await);
    }
    let mut demos = JoinSet::new();
    for (number, (began, world)) in worlds.into_iter().enumerate() {
        demos.spawn(async move {
            let demo = Demo::run(began, world).await;
            (number, demo.view().await, demo.rows().await, demo)
        });
    }
    let mut ended = demos.join_all().await;
    ended.sort_by_key(|(number, ..)| *number);
    let view = alike(ended.iter().map(|(_, view, ..)| view).collect());
    let product = alike(ended.iter().map(|(_, _, rows, _)| &rows[0]).collect());
    let system = alike(ended.iter().map(|(_, _, rows, _)| &rows[1]).collect());
    let rows = [("product.txt", product), ("system.txt", system)];
    let rows = rows.map(|(name, text)| (name.to_owned(), text));
    vec![Shown::File(view), Shown::Folder(rows.into())]
}

/// The text that all have in common. Whatever differs between places is a mistake, and no golden.
fn alike(shown: Vec<&String>) -> String {
    for (other, place) in shown.iter().zip(&PLACES) {
        assert!(
            *other == shown[0],
            "it depends on where it is\n{}",
            diff((PLACES[0].name, shown[0]), (place.name, other))
        );
    }
    shown[0].clone()
}
