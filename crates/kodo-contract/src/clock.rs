//! The one place that reads the wall clock.

use time::OffsetDateTime;

/// What time it is, for timestamps that are stored and shown.
///
/// Never to measure how long something took, nor for a deadline: the clock may be set meanwhile, and
/// [`std::time::Instant`] is for that.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
