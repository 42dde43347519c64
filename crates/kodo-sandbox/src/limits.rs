//! The limits of a job.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits on what a job may use. A job that exceeds one is ended, with the reason of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Elapsed time.
    #[serde(rename = "wallMs", with = "milliseconds")]
    pub wall: Duration,
    /// Memory of all processes together, including files in the job's folders.
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    pub processes: u64,
    /// Bytes that it may print on both streams together. More ends the job.
    pub output_bytes: u64,
    /// How much of each stream is kept: half from its beginning and half from its end.
    pub kept_bytes: u64,
    /// Files in the job's folders, in bytes.
    pub disk_bytes: u64,
    /// Files in the job's folders, in number, folders included.
    pub inodes: u64,
    /// Files, sockets and pipes that one process can have open. More fail to open; the job goes on.
    pub open_files: u64,
    /// Files that are handed back, in bytes together.
    pub returned_bytes: u64,
    /// Files that are handed back, in number.
    pub returned_files: u64,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(60),
            memory_bytes: 512 * MIB,
            // A browser has some 130 threads on two processors.
            processes: 512,
            output_bytes: 16 * MIB,
            kept_bytes: 64 * KIB,
            disk_bytes: 256 * MIB,
            inodes: 64 * KIB,
            open_files: 4 * KIB,
            returned_bytes: 8 * MIB,
            returned_files: 1024,
        }
    }
}

impl Limits {
    /// The most that a call of a plan may ask for by default: enough for a large build.
    #[must_use]
    pub fn most() -> Self {
        Self {
            wall: Duration::from_secs(3600),
            memory_bytes: 4 * GIB,
            processes: 1024,
            output_bytes: GIB,
            kept_bytes: 4 * MIB,
            disk_bytes: 4 * GIB,
            inodes: MIB,
            open_files: 64 * KIB,
            returned_bytes: 64 * MIB,
            returned_files: 16 * KIB,
        }
    }

    /// The same limits, none of them above that of `most`: a default that is above it is lowered, one that was asked for is
    /// an error.
    ///
    /// # Errors
    /// Which limit is too high.
    pub fn within(mut self, most: &Self) -> Result<Self, String> {
        let usual = Self::default();
        let wall = |it: &Self| u64::try_from(it.wall.as_millis()).unwrap_or(u64::MAX);
        if self.wall > most.wall {
            if self.wall != usual.wall {
                return Err(beyond("wallMs", wall(&self), wall(most)));
            }
            self.wall = most.wall;
        }
        let table: [(&str, &mut u64, u64, u64); 9] = [
            (
                "memoryBytes",
                &mut self.memory_bytes,
                most.memory_bytes,
                usual.memory_bytes,
            ),
            (
                "processes",
                &mut self.processes,
                most.processes,
                usual.processes,
            ),
            (
                "outputBytes",
                &mut self.output_bytes,
                most.output_bytes,
                usual.output_bytes,
            ),
            (
                "keptBytes",
                &mut self.kept_bytes,
                most.kept_bytes,
                usual.kept_bytes,
            ),
            (
                "diskBytes",
                &mut self.disk_bytes,
                most.disk_bytes,
                usual.disk_bytes,
            ),
            ("inodes", &mut self.inodes, most.inodes, usual.inodes),
            (
                "openFiles",
                &mut self.open_files,
                most.open_files,
                usual.open_files,
            ),
            (
                "returnedBytes",
                &mut self.returned_bytes,
                most.returned_bytes,
                usual.returned_bytes,
            ),
            (
                "returnedFiles",
                &mut self.returned_files,
                most.returned_files,
                usual.returned_files,
            ),
        ];
        for (name, asked, most, usual) in table {
            if *asked > most && *asked != usual {
                return Err(beyond(name, *asked, most));
            }
            *asked = (*asked).min(most);
        }
        Ok(self)
    }

    /// Which limit no provider accepts, if there is one.
    pub(crate) fn fault(&self) -> Option<String> {
        let wall = u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX);
        // The minimum is what the smallest program needs, the maximum what one machine can have.
        let table = [
            ("wallMs", wall, 1, 24 * 3600 * 1000),
            ("memoryBytes", self.memory_bytes, 8 * MIB, 256 * GIB),
            ("processes", self.processes, 1, 32 * KIB),
            ("outputBytes", self.output_bytes, 0, 64 * GIB),
            ("keptBytes", self.kept_bytes, 0, 16 * MIB),
            ("diskBytes", self.disk_bytes, 64 * KIB, 256 * GIB),
            ("inodes", self.inodes, 16, 16 * MIB),
            // A kernel does not give a process more by default.
            ("openFiles", self.open_files, 16, MIB),
            ("returnedBytes", self.returned_bytes, 0, 256 * MIB),
            ("returnedFiles", self.returned_files, 0, 64 * KIB),
        ];
        table.into_iter().find_map(|(name, value, least, most)| {
            (value < least || value > most)
                .then(|| format!("limits.{name} must be from {least} to {most}, not {value}"))
        })
    }
}

fn beyond(name: &str, asked: u64, most: u64) -> String {
    format!("limits.{name} of a plan may be at most {most} here, not {asked}")
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_asks_for_no_more_than_there_is_for_plans() {
        let usual = Limits::default();
        assert_eq!(usual.within(&Limits::most()), Ok(usual));
        assert_eq!(Limits::most().within(&Limits::most()), Ok(Limits::most()));
        let day: Limits = serde_json::from_str(r#"{"wallMs": 86400000}"#).unwrap();
        let reason = day.within(&Limits::most()).unwrap_err();
        assert!(
            reason.contains("limits.wallMs") && reason.contains("3600000"),
            "{reason}"
        );
        let little = Limits {
            wall: Duration::from_secs(1),
            memory_bytes: 64 * MIB,
            ..Limits::most()
        };
        let lowered = usual.within(&little).unwrap();
        assert_eq!(
            (lowered.wall, lowered.memory_bytes),
            (little.wall, 64 * MIB)
        );
    }

    #[test]
    fn limits_that_are_not_named_are_the_usual_ones() {
        let limits: Limits = serde_json::from_str(r#"{"wallMs": 1500}"#).unwrap();
        assert_eq!(limits.wall, Duration::from_millis(1500));
        assert_eq!(limits.processes, Limits::default().processes);
        assert!(serde_json::from_str::<Limits>(r#"{"wall": 1}"#).is_err());
        assert!(serde_json::from_str::<Limits>(r#"{"wallMs": -1}"#).is_err());
    }
}
