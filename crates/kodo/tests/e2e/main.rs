//! The end-to-end tests: the product flow of the course over real HTTP, and everything that the product shows, compared
//! with the goldens in `tests/golden`.
//!
//! `mise run test:e2e` compares; `mise run test:golden:refresh` rewrites.

// A test says that something cannot fail by failing, and holds the service's times against the machine's clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    unreachable_pub
)]

mod answers;
mod answers_down;
mod demo;
mod dump;
mod exchange;
mod fail_closed;
mod flow;
mod goldens;
mod help;
mod normalise;

// What the integration tests have for the same ends; they use more of it.
#[allow(dead_code)]
#[path = "../it/api.rs"]
mod api;
#[allow(dead_code)]
#[path = "../it/door.rs"]
mod door;
#[allow(dead_code)]
#[path = "../it/golden_folder.rs"]
mod golden_folder;
#[allow(dead_code)]
#[path = "../it/program.rs"]
mod program;
#[allow(dead_code)]
#[path = "../it/raw.rs"]
mod raw;
#[allow(dead_code)]
#[path = "../it/support.rs"]
mod support;
#[allow(dead_code)]
#[path = "../it/test_databases.rs"]
mod test_databases;
