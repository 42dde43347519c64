//! Access: which origins and which token a request may come with.

pub(crate) mod origins;
pub(crate) mod policy;
pub(crate) mod token;
