//! The admin API, on loopback only: one operation a file.

pub(crate) mod dbos_healthz;
