//! An OpenCode of our own: found, and started in the jail, or beside it where the operator says so.

mod found;
mod jailed;
mod kept;
mod unjailed;

pub(crate) use found::find;
pub(crate) use jailed::JailedOpenCode;
pub(crate) use unjailed::UnjailedOpenCode;
