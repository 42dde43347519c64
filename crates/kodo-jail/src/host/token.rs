//! A number that tells this service from every other one.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// The number, which no other service has, on this machine or in another of its containers, where process ids are no such
/// numbers.
#[expect(clippy::disallowed_methods, reason = "an id")]
pub(crate) fn token() -> u64 {
    static TOKEN: OnceLock<u64> = OnceLock::new();
    // The standard library takes the keys of its hash tables from the kernel's random numbers.
    *TOKEN.get_or_init(|| RandomState::new().hash_one(std::process::id()))
}
