//! Who may ask: the origins of browsers, and the token.

pub(crate) mod origins;
pub(crate) mod policy;
pub(crate) mod token;
