//! Which accepted runs this process starts, and how many at once.

pub(crate) mod claim;
pub(crate) mod dispatcher;
