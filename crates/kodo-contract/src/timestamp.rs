//! Points in time as the API writes them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{
    OffsetDateTime, PrimitiveDateTime, UtcOffset, format_description::StaticFormatDescription,
    macros::format_description,
};

const FORMAT: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A point in time: UTC, to the millisecond, written `2026-01-02T03:04:05.678Z`.
///
/// Finer digits are cut off when it is made, not when it is written, so that equal texts mean equal
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        // Only the last hours of year 9999 have no UTC form; the clock reading is then the nearest
        // that there is.
        let utc = time
            .checked_to_offset(UtcOffset::UTC)
            .unwrap_or_else(|| time.replace_offset(UtcOffset::UTC));
        let whole = utc.replace_millisecond(utc.millisecond());
        Self(whole.unwrap_or(utc))
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&FORMAT).map_err(|_| fmt::Error)?;
        f.pad(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        PrimitiveDateTime::parse(&text, &FORMAT)
            .map(|time| Self(time.assume_utc()))
            .map_err(|_| {
                let expected = "a time like 2026-01-02T03:04:05.678Z";
                de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
            })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn json(time: OffsetDateTime) -> String {
        serde_json::to_string(&Timestamp::from(time)).unwrap()
    }

    #[test]
    fn a_time_is_written_in_utc_with_three_digits() {
        assert_eq!(
            json(datetime!(2026-01-02 05:04:05.6789 +2)),
            "\"2026-01-02T03:04:05.678Z\""
        );
        assert_eq!(
            json(datetime!(2026-01-02 03:04:05 UTC)),
            "\"2026-01-02T03:04:05.000Z\""
        );
        assert_eq!(
            json(datetime!(0000-01-01 00:00:00 UTC)),
            "\"0000-01-01T00:00:00.000Z\""
        );
    }

    #[test]
    fn the_end_of_time_does_not_panic() {
        let last = datetime!(9999-12-31 23:59:59.999 -23:59);
        assert_eq!(json(last), "\"9999-12-31T23:59:59.999Z\"");
    }

    #[test]
    fn what_was_written_reads_back_as_the_same_value() {
        let time = Timestamp::from(datetime!(2026-01-02 03:04:05.678901 UTC));
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
    }

    #[test]
    fn other_spellings_of_a_time_are_refused() {
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.6789Z",
            "2026-01-02T03:04:05.678+00:00",
            "2026-02-30T03:04:05.678Z",
            "2026-01-02 03:04:05.678Z",
        ] {
            let json = format!("\"{text}\"");
            assert!(serde_json::from_str::<Timestamp>(&json).is_err(), "{text}");
        }
    }
}
