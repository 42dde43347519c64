//! Databases for tests: cloned from a template, so that each test has its own and none waits for migrations.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use futures_util::{StreamExt, TryStreamExt, stream};
use kodo_store::DatabaseConfig;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::harness::{Databases, HarnessError};

/// Advisory lock under which templates are made: "tmpl" in ASCII.
const LOCK: i64 = 0x746d_706c;

/// Prefix of every database that a test makes.
const PREFIX: &str = "kodo_it";

/// Databases that are dropped at the same time, each over a connection of its own.
const DROPPED_AT_ONCE: usize = 32;

/// How many [`TestDatabases`] this process has. Those of others it knows by their names.
static MINE: AtomicUsize = AtomicUsize::new(0);

/// Databases of one test.
///
/// They outlive the value until no test runs any more, and then the last one drops them all: `DROP DATABASE`
/// forces a checkpoint, which writes out whatever all the others are busy with and takes a second among them.
#[derive(Debug)]
pub struct TestDatabases {
    /// Where they are.
    pub databases: Databases,
}

impl TestDatabases {
    /// A product and a system database in one database, migrated: the cheaper kind.
    ///
    /// # Errors
    /// [`HarnessError`] where the server or the binary does not do its part.
    pub async fn one(
        program: &Path,
        server: &DatabaseConfig,
        test: &str,
    ) -> Result<Self, HarnessError> {
        let name = unique(test);
        let one = server.with_database(format!("{name}_one"));
        // Counted before they are there: nobody may take what is being made for left behind.
        let new = Self::counted(Databases {
            app: one.clone(),
            system: one.clone(),
        });
        clone(program, server, vec![(one, Kind::Both)]).await?;
        Ok(new)
    }

    /// A product and a system database apart, migrated: as in production.
    ///
    /// # Errors
    /// As [`TestDatabases::one`].
    pub async fn two(
        program: &Path,
        server: &DatabaseConfig,
        test: &str,
    ) -> Result<Self, HarnessError> {
        let name = unique(test);
        let app = server.with_database(format!("{name}_app"));
        let system = server.with_database(format!("{name}_sys"));
        let new = Self::counted(Databases {
            app: app.clone(),
            system: system.clone(),
        });
        clone(
            program,
            server,
            vec![(app, Kind::App), (system, Kind::System)],
        )
        .await?;
        Ok(new)
    }

    /// Names of two databases that do not exist: what a service finds on a fresh server.
    pub fn none(server: &DatabaseConfig, test: &str) -> Self {
        let name = unique(test);
        Self::counted(Databases {
            app: server.with_database(format!("{name}_app")),
            system: server.with_database(format!("{name}_sys")),
        })
    }

    fn counted(databases: Databases) -> Self {
        MINE.fetch_add(1, Ordering::SeqCst);
        Self { databases }
    }
}

impl Drop for TestDatabases {
    fn drop(&mut self) {
        if MINE.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        let maintenance = self.databases.app.with_database("postgres");
        let dropped = apart(async move { clean_up(&maintenance).await });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("test databases stay behind: {error}");
        }
    }
}

/// Carries something out in a runtime of its own on a thread of its own: the caller may be inside of one, and block it
/// with what it does next.
fn apart<F>(what: F) -> JoinHandle<Result<(), HarnessError>>
where
    F: Future<Output = Result<(), HarnessError>> + Send + 'static,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(HarnessError::from)?;
        runtime.block_on(what)
    })
}

/// Drops the databases of every test, if this is the last test that runs.
async fn clean_up(maintenance: &DatabaseConfig) -> Result<(), HarnessError> {
    let mut admin = maintenance.connect("kodo-harness").await?;
    // Against a test that is about to begin: whoever has the lock knows who is there.
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut admin)
        .await?;
    let there = databases_of_tests(&mut admin).await?;
    let me = std::process::id();
    let others = there
        .iter()
        .filter_map(|name| owner(name))
        .any(|pid| pid != me && is_alive(pid));
    // Of this process too: one that was counted meanwhile has yet to wait for the lock.
    let mine = MINE.load(Ordering::SeqCst) > 0;
    if !others && !mine {
        let left: Vec<String> = there
            .into_iter()
            .filter(|name| owner(name).is_some())
            .collect();
        drop_all(maintenance, left).await?;
    }
    admin.close().await?;
    Ok(())
}

/// Drops databases over several connections at once: those that are dropped at the same time share the checkpoint that
/// each of them forces.
async fn drop_all(maintenance: &DatabaseConfig, names: Vec<String>) -> Result<(), HarnessError> {
    let names = stream::iter(names).map(Ok::<_, HarnessError>);
    names
        .try_for_each_concurrent(DROPPED_AT_ONCE, |name| async move {
            let mut admin = maintenance.connect("kodo-harness").await?;
            run(
                &mut admin,
                format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"),
            )
            .await?;
            admin.close().await?;
            Ok(())
        })
        .await
}

/// What a template holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    App,
    System,
    Both,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::System => "sys",
            Self::Both => "one",
        }
    }
}

/// `kodo_it_PID_TEST`, as short as Postgres wants names (63 bytes, with room for a suffix).
fn unique(test: &str) -> String {
    let test: String = test
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(30)
        .collect();
    format!("{PREFIX}_{}_{}", std::process::id(), test.to_lowercase())
}

/// Makes the databases, on a thread of its own: whoever holds the lock must get on, also while the caller's runtime is
/// blocked by a drop that waits for it.
async fn clone(
    program: &Path,
    server: &DatabaseConfig,
    wanted: Vec<(DatabaseConfig, Kind)>,
) -> Result<(), HarnessError> {
    let (program, server) = (program.to_owned(), server.clone());
    let (sender, receiver) = oneshot::channel();
    apart(async move {
        // Nobody listens any more where the test was given up.
        let _ = sender.send(clone_here(&program, &server, &wanted).await);
        Ok(())
    });
    receiver
        .await
        .map_err(|_| std::io::Error::other("the making of databases panicked"))?
}

async fn clone_here(
    program: &Path,
    server: &DatabaseConfig,
    wanted: &[(DatabaseConfig, Kind)],
) -> Result<(), HarnessError> {
    let maintenance = server.with_database("postgres");
    let mut admin = maintenance.connect("kodo-harness").await?;
    // One at a time across all test processes: a template may have no other connection while it is cloned.
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut admin)
        .await?;
    for (database, kind) in wanted {
        let template = ensure_template(program, server, &mut admin, *kind).await?;
        run(
            &mut admin,
            format!(
                "CREATE DATABASE \"{}\" TEMPLATE \"{template}\"",
                database.database
            ),
        )
        .await?;
    }
    admin.close().await?;
    Ok(())
}

/// Makes the template where it is missing. Its name has the binary's time of change, so that another build
/// gets another template; older ones are dropped.
async fn ensure_template(
    program: &Path,
    server: &DatabaseConfig,
    admin: &mut PgConnection,
    kind: Kind,
) -> Result<String, HarnessError> {
    let built = std::fs::metadata(program)?
        .modified()?
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let family = format!("{PREFIX}_template_{}", kind.suffix());
    let template = format!("{family}_{built}");
    let there = databases_of_tests(admin).await?;
    if there.contains(&template) {
        return Ok(template);
    }
    for old in there
        .iter()
        .filter(|name| name.starts_with(&family) || owner(name).is_some_and(|pid| !is_alive(pid)))
    {
        run(
            admin,
            format!("DROP DATABASE IF EXISTS \"{old}\" WITH (FORCE)"),
        )
        .await?;
    }
    // Made under another name first: an interrupted attempt must not look like a template.
    let draft = server.with_database(format!("{PREFIX}_draft_{}", std::process::id()));
    run(
        admin,
        format!(
            "DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)",
            draft.database
        ),
    )
    .await?;
    run(admin, format!("CREATE DATABASE \"{}\"", draft.database)).await?;
    let databases = Databases {
        app: draft.clone(),
        system: draft.clone(),
    };
    if matches!(kind, Kind::App | Kind::Both) {
        kodo(program, &databases, "migrate").await?;
    }
    if matches!(kind, Kind::System | Kind::Both) {
        kodo(program, &databases, "sys-reset").await?;
    }
    run(
        admin,
        format!(
            "ALTER DATABASE \"{}\" RENAME TO \"{template}\"",
            draft.database
        ),
    )
    .await?;
    Ok(template)
}

/// Every database that a test or the making of a template made.
async fn databases_of_tests(admin: &mut PgConnection) -> Result<Vec<String>, HarnessError> {
    Ok(
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
            .bind(PREFIX)
            .fetch_all(admin)
            .await?,
    )
}

/// The process that made a database, which its name has. Templates belong to nobody.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let rest = rest.strip_prefix("_draft").unwrap_or(rest);
    rest.strip_prefix('_')?.split('_').next()?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn run(admin: &mut PgConnection, statement: String) -> Result<(), HarnessError> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(admin)
        .await?;
    Ok(())
}

async fn kodo(program: &Path, databases: &Databases, verb: &str) -> Result<(), HarnessError> {
    let output = Command::new(program)
        .args(["db", verb])
        .envs(databases.environment())
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| HarnessError::Spawn {
            program: program.display().to_string(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(HarnessError::Ended {
        status: output.status.to_string(),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_names_the_process_that_made_it() {
        assert_eq!(owner("kodo_it_12_x_app"), Some(12));
        assert_eq!(owner("kodo_it_draft_13"), Some(13));
        assert_eq!(owner("kodo_it_template_one_1"), None);
        assert_eq!(owner("app_local"), None);
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(4_194_305), "beyond any pid");
    }
}
