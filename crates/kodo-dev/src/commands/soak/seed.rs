//! Where a soak's first seed comes from.

use std::hash::{BuildHasher, RandomState};

/// A number that nobody chose, short enough to be typed again.
#[expect(
    clippy::disallowed_methods,
    reason = "a soak begins somewhere new each time, and prints where"
)]
pub(super) fn fresh() -> u64 {
    RandomState::new().hash_one(()) % 1_000_000_000
}
