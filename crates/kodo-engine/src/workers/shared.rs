//! What the workflow bodies, the dispatcher and the periodic checks of one worker process share.

use std::sync::Arc;

use crate::dispatch::dispatcher::Starter;
use crate::run::context::RunContext;
use crate::settle::settler::Settler;
use crate::sysdb::system::System;

/// Shared by everything that works in this process. It never holds the engine, because the engine holds it.
pub(crate) struct Shared {
    pub(crate) ctx: RunContext,
    pub(crate) system: Arc<System>,
    /// First key of every advisory lock of this product database.
    pub(crate) lock_class: i32,
    pub(crate) starter: Arc<Starter>,
    pub(crate) settler: Settler,
}
