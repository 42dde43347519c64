//! What every request and connection passes, whatever its route: listening, limits, the log line, answers.

pub(crate) mod answer;
pub(crate) mod limits;
mod linger;
pub(crate) mod listen;
pub(crate) mod observe;
pub(crate) mod range;
