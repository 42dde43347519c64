//! The product API: one operation a file, `NOUN/VERB.rs`, with its route, its handler and what only they need.
//!
//! A new route is a file with `operation()` and `handler`, and two lines here. Its inputs are tested from then on
//! (`tests/it/refusals.rs`), and so is that it gives no answer that it does not declare.

mod egress;

use crate::route::Operation;

mod artifacts {
    pub(super) mod list;
    pub(super) mod read;
    pub(super) mod upload;
}
mod crashdemo {
    pub(super) mod start;
}
pub(crate) mod health {
    pub(crate) mod healthz;
    pub(crate) mod readyz;
}
mod intents {
    pub(super) mod create;
}
mod marks {
    pub(super) mod read;
}
mod runs {
    pub(super) mod create;
    pub(super) mod read;
    pub(super) mod workspace;
}

/// Every operation of the product API.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        // Probes
        health::healthz::operation(),
        health::readyz::operation(),
        // Intents and their runs
        intents::create::operation(),
        runs::create::operation(),
        runs::read::operation(),
        runs::workspace::operation(),
        artifacts::list::operation(),
        artifacts::read::operation(),
        artifacts::upload::operation(),
        // The crash demo
        crashdemo::start::operation(),
        marks::read::operation(),
    ]
}
