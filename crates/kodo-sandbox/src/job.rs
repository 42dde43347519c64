//! What a sandbox is asked to run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// The longest name of a file, in bytes: what every file system takes.
const MAX_COMPONENT: usize = 255;
/// The longest path of a file below the working folder, in bytes.
const MAX_PATH: usize = 1024;
/// The most that arguments and environment may take together; Linux itself ends at a quarter of the stack.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// The most that Linux takes in one argument.
const MAX_ARGUMENT: usize = 128 * 1024;

/// One program to run, with everything that it may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The program and its arguments. The program is a path, or a name that is looked for in `PATH`.
    pub argv: Vec<String>,
    /// The files that are in the job's folder before it begins.
    pub files: Vec<InputFile>,
    /// The environment, beside `PATH`, `HOME`, `TMPDIR` and `LANG`, which a job may override. Nothing of the
    /// service's own environment is there.
    pub env: BTreeMap<String, String>,
    /// The working folder, relative to the job's folder; empty for the job's folder itself.
    pub cwd: String,
    /// Bounds on what it may use.
    pub limits: Limits,
    /// Whether it may reach a network beyond its own loopback. No provider of this version grants it.
    pub network: bool,
}

impl JobSpec {
    /// A job without files, with nothing in its environment and the usual limits.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            files: Vec::new(),
            env: BTreeMap::new(),
            cwd: String::new(),
            limits: Limits::default(),
            network: false,
        }
    }

    /// The same job with one more file.
    #[must_use]
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(InputFile {
            name: name.to_owned(),
            content: content.into(),
            executable: false,
        });
        self
    }

    /// Checks everything that can be checked without a kernel. Every provider calls this first.
    ///
    /// # Errors
    /// [`SandboxError::JobInvalid`], naming the first thing that is wrong.
    pub fn check(&self) -> Result<(), SandboxError> {
        self.first_fault()
            .map_or(Ok(()), |reason| Err(SandboxError::JobInvalid { reason }))
    }

    /// As [`check`](Self::check), for a provider that has no network to give.
    ///
    /// # Errors
    /// [`SandboxError::JobInvalid`], or [`SandboxError::Refused`] if the job asks for a network.
    pub fn check_without_network(&self) -> Result<(), SandboxError> {
        self.check()?;
        if self.network {
            return Err(SandboxError::Refused {
                mechanism: "network".to_owned(),
                reason: "a network was asked for, and this provider gives none".to_owned(),
            });
        }
        Ok(())
    }

    fn first_fault(&self) -> Option<String> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Some("argv must name a program".to_owned());
        }
        let arguments = self.argv.iter().map(|it| it.len() + 1).sum::<usize>();
        let environment = self
            .env
            .iter()
            .map(|(key, value)| key.len() + value.len() + 2)
            .sum::<usize>();
        if arguments + environment > MAX_ARGUMENTS {
            return Some(format!(
                "argv and env together must not exceed {MAX_ARGUMENTS} bytes"
            ));
        }
        for argument in &self.argv {
            if argument.contains('\0') {
                return Some("an argument must not contain U+0000".to_owned());
            }
            if argument.len() >= MAX_ARGUMENT {
                return Some(format!(
                    "an argument must be shorter than {MAX_ARGUMENT} bytes: put longer text in a file"
                ));
            }
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Some(format!(
                    "env: {key:?} is no name of a variable with a value that can be set"
                ));
            }
        }
        if !self.cwd.is_empty()
            && let Some(fault) = path_fault(&self.cwd)
        {
            return Some(format!("cwd {:?} {fault}", self.cwd));
        }
        let mut seen = std::collections::BTreeSet::new();
        for file in &self.files {
            if let Some(fault) = path_fault(&file.name) {
                return Some(format!("the file name {:?} {fault}", file.name));
            }
            if !seen.insert(file.name.as_str()) {
                return Some(format!("the file {:?} is given twice", file.name));
            }
        }
        for name in &seen {
            let under = seen
                .range::<str, _>((std::ops::Bound::Excluded(*name), std::ops::Bound::Unbounded))
                .take_while(|other| other.starts_with(name))
                .any(|other| other.as_bytes().get(name.len()) == Some(&b'/'));
            if under {
                return Some(format!("{name:?} is given as a file and as a folder"));
            }
        }
        self.limits.fault()
    }
}

/// What is wrong with a path that must lie below the job's folder.
fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
        return Some("must have 1 to 1024 bytes and no U+0000");
    }
    if path.starts_with('/') {
        return Some("must be relative to the job's folder");
    }
    path.split('/').find_map(|component| match component {
        "" => Some("must not have empty components"),
        "." | ".." => Some("must not have components `.` and `..`"),
        long if long.len() > MAX_COMPONENT => Some("has a component of more than 255 bytes"),
        _ => None,
    })
}

/// A file that a job finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its path, relative to the job's folder.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Whether it can be run.
    pub executable: bool,
}

/// Bounds on what a job may use. What exceeds one ends the job, with the reason of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Time by the clock on the wall.
    #[serde(rename = "wallMs", with = "milliseconds")]
    pub wall: Duration,
    /// Memory of all processes together, files in the job's folders included.
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    pub processes: u64,
    /// What it may print on both streams together. More is not kept but ends it.
    pub output_bytes: u64,
    /// How much of each stream is kept: half from its beginning and half from its end.
    pub kept_bytes: u64,
    /// Files in the job's folders, in bytes.
    pub disk_bytes: u64,
    /// Files in the job's folders, in number, folders included.
    pub inodes: u64,
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
            processes: 64,
            output_bytes: 16 * MIB,
            kept_bytes: 64 * KIB,
            disk_bytes: 256 * MIB,
            inodes: 16 * KIB,
            returned_bytes: 8 * MIB,
            returned_files: 1024,
        }
    }
}

impl Limits {
    /// The most that a call of a plan may ask for, where the operator says nothing else: room for a build of some size,
    /// and not for a machine.
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
            returned_bytes: 64 * MIB,
            returned_files: 16 * KIB,
        }
    }

    /// The same limits where none is beyond the one of `most`. A usual one that is beyond it is what the operator allows;
    /// one that was asked for is not.
    ///
    /// # Errors
    /// Which limit, in words.
    pub fn within(mut self, most: &Self) -> Result<Self, String> {
        let usual = Self::default();
        let wall = |it: &Self| u64::try_from(it.wall.as_millis()).unwrap_or(u64::MAX);
        if self.wall > most.wall {
            if self.wall != usual.wall {
                return Err(beyond("wallMs", wall(&self), wall(most)));
            }
            self.wall = most.wall;
        }
        let table: [(&str, &mut u64, u64, u64); 8] = [
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

    /// Says which limit no provider accepts.
    fn fault(&self) -> Option<String> {
        let wall = u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX);
        // The least of each is what the smallest program needs; the most is what one machine can sensibly give.
        let table = [
            ("wallMs", wall, 1, 24 * 3600 * 1000),
            ("memoryBytes", self.memory_bytes, 8 * MIB, 256 * GIB),
            ("processes", self.processes, 1, 32 * KIB),
            ("outputBytes", self.output_bytes, 0, 64 * GIB),
            ("keptBytes", self.kept_bytes, 0, 16 * MIB),
            ("diskBytes", self.disk_bytes, 64 * KIB, 256 * GIB),
            ("inodes", self.inodes, 16, 16 * MIB),
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

    fn fault(change: impl FnOnce(&mut JobSpec)) -> String {
        let mut job = JobSpec::new(["true"]);
        change(&mut job);
        match job.check() {
            Err(SandboxError::JobInvalid { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_that_no_kernel_could_run_is_refused_before_there_is_one() {
        assert!(JobSpec::new(["true"]).check().is_ok());
        assert!(fault(|job| job.argv.clear()).contains("argv"));
        assert!(fault(|job| job.argv[0].clear()).contains("argv"));
        assert!(fault(|job| job.argv.push("a\0b".to_owned())).contains("U+0000"));
        assert!(fault(|job| job.argv.push("x".repeat(MAX_ARGUMENT))).contains("in a file"));
        assert!(fault(|job| drop(job.env.insert("A=B".to_owned(), String::new()))).contains("env"));
        assert!(fault(|job| drop(job.env.insert(String::new(), String::new()))).contains("env"));
        assert!(fault(|job| job.limits.wall = Duration::ZERO).contains("limits.wallMs"));
        assert!(fault(|job| job.limits.memory_bytes = u64::MAX).contains("limits.memoryBytes"));
    }

    #[test]
    fn no_name_leads_out_of_the_jobs_folder() {
        for name in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/",
            "a\0",
            &"x".repeat(256),
        ] {
            let as_file = fault(|job| {
                job.files.push(InputFile {
                    name: name.to_owned(),
                    content: Vec::new(),
                    executable: false,
                });
            });
            assert!(as_file.contains("file name"), "{name:?}: {as_file}");
            if !name.is_empty() {
                assert!(fault(|job| job.cwd = name.to_owned()).contains("cwd"));
            }
        }
    }

    #[test]
    fn one_name_is_one_file() {
        let twice = |first: &str, second: &str| {
            let job = JobSpec::new(["true"]).file(first, "").file(second, "");
            job.check()
        };
        assert!(twice("a", "a").is_err());
        assert!(twice("a", "a/b").is_err());
        assert!(twice("a/b", "a").is_err());
        assert!(twice("a", "a.b").is_ok());
        let between = JobSpec::new(["true"])
            .file("a", "")
            .file("a.b", "")
            .file("a/b", "");
        assert!(between.check().is_err());
    }

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
