//! What a service relies on of its server, tried before anything is accepted: an encoding that holds every text, a
//! session that stays the same, a session lock that excludes others, a commit that others see.
//!
//! A connection pooler that hands sessions round breaks the last three without a word, and work is done twice or lost.

use sqlx::PgConnection;

use crate::{DatabaseConfig, StoreError};

/// The only encoding that holds every text that a request may have.
const ENCODING: &str = "UTF8";

/// First key of the lock that is tried; the second one is the session's own process id.
const LOCK_CLASS: i32 = 0x6b6f_646f;

/// What a pooler does that does not keep a session for each client.
const HANDED_ROUND: &str = "it hands the server's sessions round among its clients, so that locks and prepared statements \
     of one are another's: set DB_HOST and DB_PORT to the server itself, or let it keep a session for each client \
     (PgBouncer: pool_mode = session)";

/// What a pooler does that answers before it has committed.
const UNSEEN: &str = "what it says is committed is not seen by another session, and may be lost: set DB_HOST and DB_PORT to \
     the server itself";

/// Why nothing can be written to a standby.
pub(crate) const STANDBY: &str =
    "the server is a standby (in recovery): DB_HOST has to name the primary";

/// How often two sessions are asked in turn. A pooler may give them different ones by chance, not every time.
const ROUNDS: u32 = 3;

impl DatabaseConfig {
    /// Tries what the service relies on, over two connections of its own.
    ///
    /// # Errors
    /// [`StoreError::Encoding`], [`StoreError::ReadOnly`], [`StoreError::Pooled`], or as any statement.
    pub async fn check_requirements(&self) -> Result<(), StoreError> {
        let checked = self.check().await;
        match checked.as_ref().map_err(StoreError::sqlstate) {
            // 42P05, 26000: another session's prepared statements are there, or its own are gone.
            Err(Some(code)) if matches!(code.as_str(), "42P05" | "26000") => {
                Err(self.pooled(HANDED_ROUND).await)
            }
            _ => checked,
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut one = self.connect("kodo-check").await?;
        self.check_encoding(&mut one).await?;
        if let Some(reason) = read_only(&mut one).await? {
            return Err(StoreError::ReadOnly {
                database: self.database.clone(),
                reason,
            });
        }
        let mut other = self.connect("kodo-check").await?;
        if let Some(broken) = broken_session(&mut one, &mut other).await? {
            return Err(self.pooled(broken).await);
        }
        Ok(())
    }

    /// The refusal of what does not keep sessions.
    async fn pooled(&self, broken: &'static str) -> StoreError {
        StoreError::Pooled {
            address: self.address(),
            pooler: self.pooler().await.to_owned(),
            broken,
        }
    }

    /// The same for the engine's database, if it exists.
    ///
    /// # Errors
    /// As [`DatabaseConfig::check_requirements`].
    pub async fn check_requirements_of_engine(&self) -> Result<(), StoreError> {
        match self.check_requirements().await {
            Err(error) if error.is_no_database() => Ok(()),
            other => other,
        }
    }

    /// Refuses a database whose encoding cannot hold every text.
    async fn check_encoding(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')")
            .persistent(false)
            .fetch_one(connection)
            .await?;
        match encoding == ENCODING {
            true => Ok(()),
            false => Err(StoreError::Encoding {
                database: self.database.clone(),
                encoding,
            }),
        }
    }

    /// The name of what stands between this process and the server, as far as it says so.
    async fn pooler(&self) -> &'static str {
        if let Ok(mut connection) = self.connect("kodo-check").await
            && sqlx::raw_sql("SHOW pool_version")
                .execute(&mut connection)
                .await
                .is_ok()
        {
            return "Pgpool-II";
        }
        // Its console is a database of this name, which a server has only by accident.
        match self.with_database("pgbouncer").connect("kodo-check").await {
            Err(error) if !error.is_no_database() => "PgBouncer",
            _ => "a connection pooler",
        }
    }
}

/// Why nothing can be written, in words; `None` if something can.
///
/// # Errors
/// As any statement.
pub async fn read_only(connection: &mut PgConnection) -> Result<Option<&'static str>, StoreError> {
    let (standby, read_only): (bool, bool) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean",
    )
    .persistent(false)
    .fetch_one(connection)
    .await?;
    Ok(match (standby, read_only) {
        (true, _) => Some(STANDBY),
        (false, true) => Some(
            "default_transaction_read_only is on, for the server, the database or the role: an operator has to turn it off",
        ),
        (false, false) => None,
    })
}

/// What two sessions do not keep of what sessions of a server keep; `None` if they keep all of it.
async fn broken_session(
    one: &mut PgConnection,
    other: &mut PgConnection,
) -> Result<Option<&'static str>, StoreError> {
    let first = backend(one).await?;
    for _ in 0..ROUNDS {
        if backend(other).await? == first {
            return Ok(Some(HANDED_ROUND));
        }
        // Twice: one that takes turns among its sessions may come round by then.
        for _ in 0..2 {
            if backend(one).await? != first {
                return Ok(Some(HANDED_ROUND));
            }
        }
    }
    let locked = try_lock(one, first).await?;
    let excluded = !try_lock(other, first).await?;
    let unlocked: bool = sqlx::query_scalar("SELECT pg_advisory_unlock($1, $2)")
        .persistent(false)
        .bind(LOCK_CLASS)
        .bind(first)
        .fetch_one(&mut *one)
        .await?;
    if !(locked && excluded && unlocked) {
        return Ok(Some(HANDED_ROUND));
    }
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .persistent(false)
        .fetch_one(&mut *one)
        .await?;
    if version < 130_000 {
        // Has no such functions, and is refused for its age.
        return Ok(None);
    }
    if !commits(one, other, first).await? {
        return Ok(Some(UNSEEN));
    }
    let transaction: String = sqlx::query_scalar("SELECT pg_current_xact_id()::text")
        .persistent(false)
        .fetch_one(one)
        .await?;
    let status: Option<String> = sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
        .persistent(false)
        .bind(transaction)
        .fetch_one(other)
        .await?;
    Ok((status.as_deref() != Some("committed")).then_some(UNSEEN))
}

/// Whether a statement that writes is over when it is answered. A pooler may have begun a transaction around it, which it
/// rolls back when its client is gone.
async fn commits(
    one: &mut PgConnection,
    other: &mut PgConnection,
    pid: i32,
) -> Result<bool, StoreError> {
    sqlx::raw_sql("CREATE TEMPORARY TABLE IF NOT EXISTS kodo_check (value integer)")
        .execute(&mut *one)
        .await?;
    sqlx::query("INSERT INTO kodo_check (value) VALUES ($1)")
        .persistent(false)
        .bind(pid)
        .execute(one)
        .await?;
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM pg_stat_activity WHERE pid = $1")
            .persistent(false)
            .bind(pid)
            .fetch_one(other)
            .await?;
    Ok(state.as_deref() != Some("idle in transaction"))
}

async fn backend(connection: &mut PgConnection) -> Result<i32, StoreError> {
    Ok(sqlx::query_scalar("SELECT pg_backend_pid()")
        .persistent(false)
        .fetch_one(connection)
        .await?)
}

async fn try_lock(connection: &mut PgConnection, key: i32) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .persistent(false)
        .bind(LOCK_CLASS)
        .bind(key)
        .fetch_one(connection)
        .await?)
}
