//! Which accepted runs this process starts, and how many at once.

pub(crate) mod dispatcher;
