//! HTTP below the routes: connections, limits of bodies, the log line, JSON answers, ranges.

pub(crate) mod answer;
mod crowd;
pub(crate) mod host;
pub(crate) mod limits;
mod linger;
pub(crate) mod listen;
pub(crate) mod observe;
pub(crate) mod range;
pub(crate) mod refused_head;
