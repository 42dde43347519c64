//! The admin API, on loopback only: one operation a file.

mod dbos_healthz;

use crate::api::health;
use crate::route::Operation;

/// Every operation of the admin API.
pub(crate) fn operations() -> Vec<Operation> {
    vec![dbos_healthz::operation(), health::readyz::operation()]
}
