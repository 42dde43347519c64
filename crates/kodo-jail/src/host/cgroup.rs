//! Limits on memory and processes by the machine's control groups (cgroups), version 2 or 1, if this process may make
//! groups below its own: so that what limits the service limits its jobs too.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use kodo_sandbox::Limits;

use super::token::token;
use crate::shortage::{at, error_passes};

/// What the jail's own processes take of a job's memory, and are given on top of it.
const OWN_MEMORY: u64 = 4 << 20;
/// The jail's own processes.
const OWN_PROCESSES: u64 = 2;
/// What our groups are called, before a number of the service and one of the job.
const PREFIX: &str = "kodo-job-";
/// How often, and for how long each time, to wait until the kernel has removed the ended processes from a group.
const PATIENCE: (u32, Duration) = (100, Duration::from_millis(5));

/// Why no cgroup can be made.
#[derive(Clone, Debug)]
pub(crate) struct NoCgroups {
    pub(crate) reason: String,
    /// The kernel was short of something, and may have it later.
    pub(crate) passes: bool,
}

impl NoCgroups {
    fn because(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self {
            reason: format!("{what}: {error}"),
            passes: error_passes(error),
        }
    }
}

impl From<String> for NoCgroups {
    fn from(reason: String) -> Self {
        let passes = false;
        Self { reason, passes }
    }
}

/// How memory and processes of a job are limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupPolicy {
    /// By a control group if this process may make one, otherwise by watching and resource limits; each result says which
    /// it was.
    #[default]
    Auto,
    /// By a control group, or the job is refused.
    Require,
    /// By a control group (version 2) below this one, or the job is refused.
    Below(PathBuf),
    /// By watching and resource limits, even where a control group could be made.
    #[cfg(feature = "weaken")]
    Never,
}

/// How many further groups are made where the sweep of another service that starts removes a new one before it is locked.
const SWEPT: usize = 16;

/// The folders of the kernel's cgroup file systems in which groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// One folder for everything.
    V2(PathBuf),
    /// One folder a controller.
    V1 { memory: PathBuf, pids: PathBuf },
}

impl Hierarchy {
    /// Finds it, and makes a group to see that it works.
    ///
    /// # Errors
    /// Why no group can be made.
    pub(crate) fn find(policy: &CgroupPolicy) -> Result<Self, NoCgroups> {
        let hierarchy = match policy {
            CgroupPolicy::Below(path) => Self::V2(path.clone()),
            #[cfg(feature = "weaken")]
            CgroupPolicy::Never => return Err("the configuration uses none".to_owned().into()),
            CgroupPolicy::Auto | CgroupPolicy::Require => {
                let read = |path: &str| {
                    fs::read_to_string(path).map_err(|it| NoCgroups::because(path, &it))
                };
                Self::of_this_process(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?
            }
        };
        hierarchy.try_out()?;
        hierarchy.sweep();
        Ok(hierarchy)
    }

    fn of_this_process(mounts: &str, groups: &str) -> Result<Self, String> {
        let mut why = "no cgroup file system is mounted".to_owned();
        if let Some(own) = folder(mounts, groups, None) {
            match below_v2(&own) {
                Ok(folder) => return Ok(Self::V2(folder)),
                Err(reason) => why = reason,
            }
        }
        match (
            folder(mounts, groups, Some("memory")),
            folder(mounts, groups, Some("pids")),
        ) {
            (Some(memory), Some(pids)) => Ok(Self::V1 { memory, pids }),
            _ => Err(why),
        }
    }

    fn folders(&self) -> Vec<&Path> {
        match self {
            Self::V2(path) => vec![path],
            Self::V1 { memory, pids } => vec![memory, pids],
        }
    }

    pub(crate) fn describe(&self) -> &'static str {
        version(matches!(self, Self::V2(_)))
    }

    /// Makes a group with limits and removes it: file permissions alone prove nothing.
    fn try_out(&self) -> Result<(), NoCgroups> {
        self.make(&Limits::default()).map(drop).map_err(|error| {
            let what = format!("no group can be made below {}", self.name());
            NoCgroups::because(what, &error)
        })
    }

    fn name(&self) -> String {
        let names: Vec<_> = self
            .folders()
            .iter()
            .map(|it| it.display().to_string())
            .collect();
        names.join(" and ")
    }

    /// Removes groups that killed services have left: those that nobody holds locked. Other services, also in other
    /// containers, may have theirs in the same folder. The kernel does not remove a group that has processes.
    fn sweep(&self) {
        for folder in self.folders() {
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(PREFIX.as_bytes())
                {
                    continue;
                }
                let Ok(lock) = File::open(entry.path()) else {
                    continue;
                };
                if lock.try_lock().is_ok() {
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// Makes a group with a job's limits.
    pub(crate) fn make(&self, limits: &Limits) -> io::Result<Group> {
        let mut made = self.make_one(limits);
        for _ in 0..SWEPT {
            match &made {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    made = self.make_one(limits);
                }
                _ => break,
            }
        }
        made
    }

    fn make_one(&self, limits: &Limits) -> io::Result<Group> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{:016x}-{number}", token());
        let (memory, pids, v2) = match self {
            Self::V2(path) => (path.join(&name), path.join(&name), true),
            Self::V1 { memory, pids } => (memory.join(&name), pids.join(&name), false),
        };
        let mut group = Group {
            memory,
            pids,
            v2,
            locks: Vec::new(),
        };
        for folder in group.folders() {
            fs::create_dir(folder).map_err(at(folder.display()))?;
        }
        group.locks = group
            .folders()
            .into_iter()
            .map(locked)
            .collect::<Result<_, _>>()?;
        let bytes = (limits.memory_bytes + OWN_MEMORY).to_string();
        if v2 {
            set(&group.memory, "memory.max", &bytes)?;
            // This file does not exist on a machine without swap.
            let _ = set(&group.memory, "memory.swap.max", "0");
        } else {
            set(&group.memory, "memory.limit_in_bytes", &bytes)?;
            let _ = set(&group.memory, "memory.memsw.limit_in_bytes", &bytes);
            let _ = set(&group.memory, "memory.swappiness", "0");
        }
        let processes = (limits.processes + OWN_PROCESSES).to_string();
        set(&group.pids, "pids.max", &processes)?;
        Ok(group)
    }
}

/// A group for one job. Dropping it removes it.
pub(crate) struct Group {
    memory: PathBuf,
    pids: PathBuf,
    v2: bool,
    /// Held as long as the group is wanted.
    locks: Vec<File>,
}

/// Locks a new group's folder. An error if another service's sweep came between, and has removed it.
fn locked(folder: &Path) -> io::Result<File> {
    use std::os::unix::fs::MetadataExt;
    // EBUSY: the next one will be locked in time.
    let swept = || io::Error::from_raw_os_error(libc::EBUSY);
    let lock = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(swept()),
        opened => opened?,
    };
    lock.lock_shared()?;
    match fs::metadata(folder) {
        Ok(there) if there.ino() == lock.metadata()?.ino() => Ok(lock),
        _ => Err(swept()),
    }
}

/// What the kernel counted in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) killed_for_memory: bool,
    pub(crate) refused_a_process: bool,
    pub(crate) peak_memory: Option<u64>,
}

fn version(v2: bool) -> &'static str {
    if v2 { "cgroup v2" } else { "cgroup v1" }
}

impl Group {
    pub(crate) fn describe(&self) -> &'static str {
        version(self.v2)
    }

    fn folders(&self) -> Vec<&Path> {
        if self.v2 {
            vec![&self.memory]
        } else {
            vec![&self.memory, &self.pids]
        }
    }

    /// The files to which a process writes `0` to enter the group.
    ///
    /// In version 1 that is `tasks`: a thread that moves itself does not change meanwhile, so the kernel takes no
    /// machine-wide lock for it. For a write to `cgroup.procs`, or of another process's id, it would wait until every
    /// processor has been through an RCU grace period, which is more than ten milliseconds on a busy machine.
    pub(crate) fn entry_files(&self) -> Vec<PathBuf> {
        let name = if self.v2 { "cgroup.procs" } else { "tasks" };
        self.folders().iter().map(|it| it.join(name)).collect()
    }

    pub(crate) fn observed(&self) -> Observed {
        let (events, peak) = if self.v2 {
            ("memory.events", "memory.peak")
        } else {
            ("memory.oom_control", "memory.max_usage_in_bytes")
        };
        Observed {
            killed_for_memory: count(&self.memory, events, "oom_kill ") > 0,
            refused_a_process: count(&self.pids, "pids.events", "max ") > 0,
            peak_memory: fs::read_to_string(self.memory.join(peak))
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    fn remove(&self) {
        for folder in self.folders() {
            for _ in 0..PATIENCE.0 {
                match fs::remove_dir(folder) {
                    // Ended processes are counted until the kernel has removed them.
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        thread::sleep(PATIENCE.1);
                    }
                    // Otherwise the next sweep removes it.
                    _ => break,
                }
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
    }
}

fn set(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    write(&folder.join(file), value)
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    // Never creates: these files are the kernel's.
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(at(path.display()))
}

fn count(folder: &Path, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().parse().ok())
        .unwrap_or(0)
}

/// The folder of this process's own group: of one controller of version 1, or of version 2.
fn folder(mounts: &str, groups: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match controller {
            Some(name) => controllers.split(',').any(|it| it == name),
            None => number == "0" && controllers.is_empty(),
        };
        ours.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        let ours = match controller {
            Some(controller) => name == "cgroup" && options.split(',').any(|it| it == controller),
            None => name == "cgroup2",
        };
        let mut mount = mount.split(' ').skip(3);
        let (root, place) = (mount.next()?, mount.next()?);
        let below = if root == "/" {
            path
        } else {
            path.strip_prefix(root)?
        };
        ours.then(|| Path::new(place).join(below.trim_start_matches('/')))
    })
}

/// Where groups of version 2 can be made: below this process's own group if that delegates the controllers memory and pids
/// to its children (the root group may, although it has processes), otherwise beside it if the group above is delegated
/// to this process.
fn below_v2(own: &Path) -> Result<PathBuf, String> {
    let delegates = |path: &Path| {
        let text = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
        let names: Vec<_> = text.split_whitespace().collect();
        names.contains(&"memory") && names.contains(&"pids")
    };
    if delegates(own) {
        return Ok(own.to_owned());
    }
    let above = own.parent().filter(|above| is_delegated(above));
    if let Some(above) = above {
        if !delegates(above) {
            // Works if no process is in that group itself.
            let _ = set(above, "cgroup.subtree_control", "+memory +pids");
        }
        if delegates(above) {
            return Ok(above.to_owned());
        }
    }
    Err(format!(
        "{} does not hand the controllers memory and pids on, and the one above is not delegated to this process",
        own.display()
    ))
}

/// Whether the manager of the groups has delegated this one: systemd says so by an extended attribute, others by owner.
fn is_delegated(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid();
    let owned = !me.is_root() && fs::metadata(path).is_ok_and(|it| it.uid() == me.as_raw());
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(path, *name, &mut value).is_ok_and(|length| &value[..length] == b"1")
    });
    owned || marked
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
32 25 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V1_GROUPS: &str = "8:pids:/\n4:memory:/a/b\n0::/\n";

    #[test]
    fn the_folder_of_a_controller_is_that_of_this_process() {
        let memory = folder(V1, V1_GROUPS, Some("memory"));
        assert_eq!(memory, Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(folder(V1, V1_GROUPS, Some("cpu")), None);
        assert_eq!(
            folder(V1, V1_GROUPS, None),
            Some("/sys/fs/cgroup/unified/".into())
        );
    }

    #[test]
    fn a_mount_that_shows_only_a_part_is_read_from_there() {
        let mounts = "9 1 0:2 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let groups = "4:memory:/docker/x/y\n";
        let memory = folder(mounts, groups, Some("memory"));
        assert_eq!(memory, Some("/sys/fs/cgroup/memory/y".into()));
        assert_eq!(folder(mounts, "4:memory:/other\n", Some("memory")), None);
    }

    #[test]
    fn a_sweep_leaves_groups_that_somebody_holds_whatever_process_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2(folder.path().to_owned());
        // Of a container in which another process has this number, or none has.
        let names = ["kodo-job-4000000-0", "kodo-job-00000000000000ff-0", "other"];
        let [held, left, other] = names.map(|name| folder.path().join(name));
        for group in [&held, &left, &other] {
            fs::create_dir(group).unwrap();
        }
        let lock = locked(&held).unwrap();
        hierarchy.sweep();
        assert!(held.exists() && other.exists() && !left.exists());
        drop(lock);
        hierarchy.sweep();
        assert!(!held.exists() && other.exists());
        // A group that a sweep removes before it is locked is no refusal: another one is made.
        let swept = locked(&held).unwrap_err();
        assert_eq!(swept.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn a_group_of_version_2_that_delegates_nothing_is_not_used_and_says_why() {
        let own = tempfile::tempdir().unwrap();
        fs::write(own.path().join("cgroup.subtree_control"), "cpu\n").unwrap();
        let reason = below_v2(own.path()).unwrap_err();
        assert!(reason.contains("memory and pids"), "{reason}");
        fs::write(
            own.path().join("cgroup.subtree_control"),
            "cpu memory pids\n",
        )
        .unwrap();
        assert_eq!(below_v2(own.path()).unwrap(), own.path());
    }

    #[test]
    fn bounds_and_counts_of_version_2_are_written_and_read_where_the_kernel_has_them() {
        let own = tempfile::tempdir().unwrap();
        let group = Group {
            memory: own.path().to_owned(),
            pids: own.path().to_owned(),
            v2: true,
            locks: Vec::new(),
        };
        let put = |name: &str, text: &str| fs::write(own.path().join(name), text).unwrap();
        put(
            "memory.events",
            "low 0\noom 2\noom_kill 1\noom_group_kill 0\n",
        );
        put("memory.peak", "12345\n");
        put("pids.events", "max 0\n");
        put("cgroup.procs", "");
        let observed = Observed {
            killed_for_memory: true,
            refused_a_process: false,
            peak_memory: Some(12345),
        };
        assert_eq!(group.observed(), observed);
        for file in group.entry_files() {
            write(&file, "0").unwrap();
        }
        assert_eq!(
            fs::read_to_string(own.path().join("cgroup.procs")).unwrap(),
            "0"
        );
        assert!(set(own.path(), "memory.max", "1").is_err(), "never creates");
    }
}
