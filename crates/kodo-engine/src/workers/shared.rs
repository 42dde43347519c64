//! What the workflow bodies, the dispatcher and the periodic checks of one worker process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::dispatch::dispatcher::Dispatcher;
use crate::run::context::RunContext;
use crate::sysdb::schema::EngineSchema;
use crate::sysdb::system_db::SystemDb;
use crate::workers::error::WorkerError;
use crate::workers::stall::Awaited;
use crate::workers::standstill::Standstill;

/// Shared by everything that works in this process.
pub(crate) struct Shared {
    pub(crate) ctx: RunContext,
    pub(crate) system_db: Arc<SystemDb>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Why the engine does not run, if it does not.
    pub(crate) standstill: Standstill,
    /// What waits too long while it runs.
    pub(crate) awaited: Arc<Awaited>,
    /// The version of the engine's schema, as it was seen last; 0 before.
    pub(crate) schema: AtomicI64,
}

impl Shared {
    /// Looks at the version of the engine's schema. Another SDK may migrate it while this service runs, which goes on.
    pub(crate) async fn look_at_schema(&self) -> Result<(), WorkerError> {
        let seen = self.system_db.schema_version().await?;
        if self.schema.swap(seen, Ordering::Relaxed) != seen
            && let Some(warning) = EngineSchema(seen).warning()
        {
            tracing::warn!(version = seen, "{warning}");
        }
        Ok(())
    }
}
