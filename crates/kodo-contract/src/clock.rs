//! The one place that reads the wall clock.

use std::time::Instant;

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

/// A beginning, and the times since then: the wall clock is read once, so that an end is never before its beginning,
/// whatever the clock is set to meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started_at: OffsetDateTime,
    since: Instant,
}

impl Stopwatch {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started_at: now(),
            since: Instant::now(),
        }
    }

    /// When it began.
    #[must_use]
    pub fn started_at(&self) -> OffsetDateTime {
        self.started_at
    }

    /// What time it is: the beginning and the time that has passed since.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        self.started_at + self.since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_ends_nothing_before_its_beginning() {
        // As if the wall clock had been an hour ahead when it began.
        let watch = Stopwatch {
            started_at: now() + std::time::Duration::from_secs(3600),
            since: Instant::now(),
        };
        assert!(watch.now() >= watch.started_at());
        assert!(watch.now() > now());
    }
}
