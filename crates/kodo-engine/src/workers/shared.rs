//! What the workflow bodies, the dispatcher and the periodic checks of one worker process share.

use std::sync::Arc;

use crate::dispatch::dispatcher::Dispatcher;
use crate::run::context::RunContext;
use crate::settle::settler::Settler;
use crate::sysdb::system_db::SystemDb;
use crate::workers::standstill::Standstill;

/// Shared by everything that works in this process. It never holds the engine, because the engine holds it.
pub(crate) struct Shared {
    pub(crate) ctx: RunContext,
    pub(crate) system_db: Arc<SystemDb>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) settler: Settler,
    /// Why the engine does not run, if it does not.
    pub(crate) standstill: Standstill,
}
