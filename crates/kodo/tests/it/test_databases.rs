//! Databases for tests: cloned from a template, so that each test has its own and none waits for migrations.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use kodo_store::DatabaseConfig;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::process::Command;

use kodo_dev::harness::Databases;

/// Advisory lock under which templates are made: "tmpl" in ASCII.
const LOCK: i64 = 0x746d_706c;

/// Prefix of every database that a test makes.
const PREFIX: &str = "kodo_it";

/// Databases that are dropped at the same time, each over a connection of its own.
const DROPPED_AT_ONCE: usize = 32;

/// What a template holds: the end of its name, and the verbs of `kodo db` that fill it.
type Content = (&'static str, &'static [&'static str]);
const APP: Content = ("app", &["migrate"]);
const SYSTEM: Content = ("sys", &["sys-reset"]);
const BOTH: Content = ("one", &["migrate", "sys-reset"]);

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
    /// If the server or the binary does not do its part.
    pub async fn one(program: &Path, server: &DatabaseConfig, test: &str) -> anyhow::Result<Self> {
        let one = server.with_database(unique(test, BOTH.0));
        // Counted before they are there: nobody may take what is being made for left behind.
        let new = Self::counted(one.clone(), one.clone());
        clone(program, server, vec![(one, BOTH)]).await?;
        Ok(new)
    }

    /// A product and a system database apart, migrated: as in production.
    ///
    /// # Errors
    /// As [`TestDatabases::one`].
    pub async fn two(program: &Path, server: &DatabaseConfig, test: &str) -> anyhow::Result<Self> {
        let new = Self::none(server, test);
        let Databases { app, system, .. } = new.databases.clone();
        clone(program, server, vec![(app, APP), (system, SYSTEM)]).await?;
        Ok(new)
    }

    /// Names of two databases that do not exist: what a service finds on a fresh server.
    pub fn none(server: &DatabaseConfig, test: &str) -> Self {
        Self::counted(
            server.with_database(unique(test, APP.0)),
            server.with_database(unique(test, SYSTEM.0)),
        )
    }

    fn counted(app: DatabaseConfig, system: DatabaseConfig) -> Self {
        MINE.fetch_add(1, Ordering::SeqCst);
        let artifacts = std::env::temp_dir()
            .join("kodo-it-artifacts")
            .join(&app.database);
        let databases = Databases {
            app,
            system,
            artifacts: Some(artifacts),
        };
        Self { databases }
    }
}

impl Drop for TestDatabases {
    fn drop(&mut self) {
        // Of its own: databases that are cloned from one template have one id, and would share what is theirs in a store.
        if let Some(artifacts) = &self.databases.artifacts {
            let _ = std::fs::remove_dir_all(artifacts);
        }
        if MINE.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        let maintenance = self.databases.app.with_database("postgres");
        // On a thread of its own: the caller may be inside of a runtime, and block it with what it does next.
        let dropped = std::thread::spawn(move || apart(clean_up(&maintenance)));
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("test databases stay behind: {error:#}");
        }
    }
}

/// Runs something in a runtime of its own.
fn apart(what: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(what)
}

/// A connection that holds the lock of whoever makes or drops databases, across all test processes.
async fn locked(maintenance: &DatabaseConfig) -> anyhow::Result<PgConnection> {
    let mut admin = maintenance.connect("kodo-harness").await?;
    let lock = sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK);
    lock.execute(&mut admin).await?;
    Ok(admin)
}

/// Drops the databases of every test, if this is the last test that runs.
async fn clean_up(maintenance: &DatabaseConfig) -> anyhow::Result<()> {
    // Against a test that is about to begin: whoever has the lock knows who is there.
    let mut admin = locked(maintenance).await?;
    let mut left = databases_of_tests(&mut admin).await?;
    left.retain(|name| owner(name).is_some());
    let me = std::process::id();
    let owners = left.iter().filter_map(|name| owner(name));
    let others = owners.into_iter().any(|pid| pid != me && is_alive(pid));
    // Of this process too: one that was counted meanwhile has yet to wait for the lock.
    if !others && MINE.load(Ordering::SeqCst) == 0 {
        // Those that are dropped at the same time share the checkpoint that each of them forces.
        let left = stream::iter(left).map(anyhow::Ok);
        left.try_for_each_concurrent(DROPPED_AT_ONCE, |name| async move {
            let mut admin = maintenance.connect("kodo-harness").await?;
            drop_database(&mut admin, &name).await?;
            Ok(admin.close().await?)
        })
        .await?;
    }
    Ok(admin.close().await?)
}

/// `kodo_it_PID_TEST_CONTENT`, as short as Postgres wants names (63 bytes).
fn unique(test: &str, content: &str) -> String {
    let test: String = test
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(30)
        .collect();
    let (pid, test) = (std::process::id(), test.to_lowercase());
    format!("{PREFIX}_{pid}_{test}_{content}")
}

/// Makes the databases, on a thread of its own: whoever holds the lock must get on, also while the caller's runtime is
/// blocked by a drop that waits for it.
async fn clone(
    program: &Path,
    server: &DatabaseConfig,
    wanted: Vec<(DatabaseConfig, Content)>,
) -> anyhow::Result<()> {
    let (program, server) = (program.to_owned(), server.clone());
    tokio::task::spawn_blocking(move || {
        apart(async {
            // One at a time: a template may have no other connection while it is cloned.
            let mut admin = locked(&server.with_database("postgres")).await?;
            for (DatabaseConfig { database, .. }, content) in wanted {
                let template = ensure_template(&program, &server, &mut admin, content).await?;
                let create = format!("CREATE DATABASE \"{database}\" TEMPLATE \"{template}\"");
                admin.execute(AssertSqlSafe(create)).await?;
            }
            Ok(admin.close().await?)
        })
    })
    .await?
}

/// Makes the template where it is missing. Its name has the binary's time of change, so that another build
/// gets another template; older ones are dropped.
async fn ensure_template(
    program: &Path,
    server: &DatabaseConfig,
    admin: &mut PgConnection,
    (suffix, verbs): Content,
) -> anyhow::Result<String> {
    let built = std::fs::metadata(program)?.modified()?;
    let built = built.duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let family = format!("{PREFIX}_template_{suffix}");
    let template = format!("{family}_{built}");
    let there = databases_of_tests(admin).await?;
    if there.contains(&template) {
        return Ok(template);
    }
    for old in there
        .iter()
        .filter(|name| name.starts_with(&family) || owner(name).is_some_and(|pid| !is_alive(pid)))
    {
        drop_database(admin, old).await?;
    }
    // Made under another name first: an interrupted attempt must not look like a template.
    let draft = format!("{PREFIX}_draft_{}", std::process::id());
    drop_database(admin, &draft).await?;
    let create = format!("CREATE DATABASE \"{draft}\"");
    admin.execute(AssertSqlSafe(create)).await?;
    let databases = Databases {
        app: server.with_database(&draft),
        system: server.with_database(&draft),
        artifacts: None,
    };
    for verb in verbs {
        kodo(program, &databases, verb).await?;
    }
    let rename = format!("ALTER DATABASE \"{draft}\" RENAME TO \"{template}\"");
    admin.execute(AssertSqlSafe(rename)).await?;
    Ok(template)
}

/// Every database that a test or the making of a template made.
async fn databases_of_tests(admin: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
        .bind(PREFIX)
        .fetch_all(admin)
        .await
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

async fn drop_database(admin: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let drop = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
    admin.execute(AssertSqlSafe(drop)).await.map(|_| ())
}

async fn kodo(program: &Path, databases: &Databases, verb: &str) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(["db", verb])
        .envs(databases.environment())
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "kodo db {verb}: {}: {said}",
        output.status
    );
    Ok(())
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
