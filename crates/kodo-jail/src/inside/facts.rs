//! What a job is told of the machine: the content of files in `/proc` and `/sys`, true for the job's limits.
//!
//! Plain files, written once for each job. What only the kernel can say is not here: a file that a program expects to differ
//! each time that it is read, or that is measured while the job runs.

use std::fs;
use std::path::Path;

use kodo_sandbox::Limits;
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

/// Settings of the kernel that programs ask for, copied from the machine's `/proc/sys`. No path and no name of the machine
/// is in any of them.
const COPIED: &[&str] = &[
    "kernel/ostype",
    "kernel/osrelease",
    "kernel/version",
    "kernel/hostname",
    "kernel/pid_max",
    "kernel/threads-max",
    "kernel/ngroups_max",
    "kernel/cap_last_cap",
    "kernel/overflowuid",
    "kernel/overflowgid",
    "kernel/randomize_va_space",
    "kernel/perf_event_paranoid",
    "kernel/seccomp/actions_avail",
    "kernel/yama/ptrace_scope",
    "kernel/random/entropy_avail",
    "kernel/random/poolsize",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "vm/max_map_count",
    "vm/mmap_min_addr",
    "vm/nr_hugepages",
    "vm/overcommit_memory",
    "vm/overcommit_ratio",
    "vm/swappiness",
    "fs/file-max",
    "fs/nr_open",
    "fs/pipe-max-size",
    "fs/inotify/max_queued_events",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "net/core/somaxconn",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/tcp_keepalive_time",
    "user/max_user_namespaces",
];

/// What there is of a machine for one job.
pub(super) struct Facts {
    memory: u64,
    processes: u64,
    /// The processors that it may run on, by number.
    processors: Vec<usize>,
}

impl Facts {
    pub(super) fn of(limits: &Limits) -> Self {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap_or_default();
        let processors = (0..CpuSet::MAX_CPU).filter(|it| allowed.is_set(*it));
        Self {
            memory: limits.memory_bytes,
            processes: limits.processes,
            processors: processors.collect(),
        }
    }

    /// Files of `/proc`, by name.
    pub(super) fn proc(&self, machines_cpuinfo: &str) -> Vec<(&'static str, String)> {
        vec![
            ("cpuinfo", self.cpuinfo(machines_cpuinfo)),
            ("meminfo", self.meminfo("")),
            ("stat", self.stat()),
            ("swaps", "Filename\tType\tSize\tUsed\tPriority\n".to_owned()),
            (
                "filesystems",
                "nodev\tproc\nnodev\ttmpfs\nnodev\tdevpts\n".to_owned(),
            ),
            (
                "vmstat",
                "pgfault 0\npgmajfault 0\npswpin 0\npswpout 0\n".to_owned(),
            ),
            ("diskstats", String::new()),
            ("partitions", "major minor  #blocks  name\n".to_owned()),
            ("cmdline", "\n".to_owned()),
        ]
    }

    /// `/proc/cgroups` for a job that has no cgroup of its own: as on a machine with version 2 alone.
    pub(super) fn controllers(&self) -> String {
        let names = ["cpuset", "cpu", "cpuacct", "memory", "pids"];
        let lines = names.map(|name| format!("{name}\t0\t1\t1\n"));
        format!(
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\n{}",
            lines.concat()
        )
    }

    /// Files of a cgroup of version 2, for a job that has none of its own.
    pub(super) fn cgroup(&self) -> Vec<(&'static str, String)> {
        vec![
            ("cgroup.controllers", "cpuset cpu memory pids\n".to_owned()),
            ("cpu.max", "max 100000\n".to_owned()),
            ("cpu.weight", "100\n".to_owned()),
            ("cpuset.cpus.effective", format!("{}\n", self.list())),
            ("memory.max", format!("{}\n", self.memory)),
            ("memory.high", "max\n".to_owned()),
            ("memory.swap.max", "0\n".to_owned()),
            ("pids.max", format!("{}\n", self.processes)),
        ]
    }

    /// Files of the cgroups of version 1 that a job has none of: processors without a limit.
    pub(super) fn processors(&self) -> Vec<(&'static str, String)> {
        vec![
            ("cpu.cfs_period_us", "100000\n".to_owned()),
            ("cpu.cfs_quota_us", "-1\n".to_owned()),
            ("cpu.shares", "1024\n".to_owned()),
            ("cpuset.cpus", format!("{}\n", self.list())),
            ("cpuset.mems", "0\n".to_owned()),
        ]
    }

    /// Files of `/sys/devices/system/node`: one node with all processors and memory.
    pub(super) fn node(&self) -> Vec<(&'static str, String)> {
        let names = [
            "online",
            "possible",
            "has_cpu",
            "has_memory",
            "has_normal_memory",
        ];
        let mut files: Vec<_> = names.map(|name| (name, "0\n".to_owned())).into();
        files.push(("node0/cpulist", format!("{}\n", self.list())));
        files.push(("node0/distance", "10\n".to_owned()));
        files.push(("node0/meminfo", self.meminfo("Node 0 ")));
        files
    }

    fn list(&self) -> String {
        let numbers: Vec<_> = self.processors.iter().map(usize::to_string).collect();
        numbers.join(",")
    }

    /// The paragraphs of the processors that the job may run on.
    fn cpuinfo(&self, machines: &str) -> String {
        let number = |paragraph: &str| -> Option<usize> {
            let (name, value) = paragraph.lines().next()?.split_once(':')?;
            (name.trim() == "processor").then(|| value.trim().parse().ok())?
        };
        let paragraphs = machines.split_inclusive("\n\n");
        paragraphs
            .filter(|it| number(it).is_none_or(|it| self.processors.contains(&it)))
            .collect()
    }

    fn meminfo(&self, prefix: &str) -> String {
        let total = self.memory / 1024;
        let mut text = String::new();
        for (name, value) in [
            ("MemTotal", total),
            ("MemFree", total),
            ("MemAvailable", total),
            ("Buffers", 0),
            ("Cached", 0),
            ("SwapCached", 0),
            ("Active", 0),
            ("Inactive", 0),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Dirty", 0),
            ("AnonPages", 0),
            ("Mapped", 0),
            ("Shmem", 0),
            ("Slab", 0),
            ("SReclaimable", 0),
            ("SUnreclaim", 0),
            ("CommitLimit", total),
            ("Committed_AS", 0),
        ] {
            let label = format!("{name}:");
            text.push_str(&format!("{prefix}{label:<15}{value:>9} kB\n"));
        }
        text
    }

    /// Processors that have been idle since the machine was started: how busy it is, is nothing for a job to know.
    fn stat(&self) -> String {
        let (up, now) = (
            clock_gettime(ClockId::Boottime).tv_sec,
            clock_gettime(ClockId::Realtime).tv_sec,
        );
        // In hundredths of a second, as the kernel tells every program.
        let times = |idle: i64| format!("0 0 0 {idle} 0 0 0 0 0 0\n");
        let count = i64::try_from(self.processors.len()).unwrap_or(1);
        let mut text = format!("cpu  {}", times(up * 100 * count));
        for number in &self.processors {
            text.push_str(&format!("cpu{number} {}", times(up * 100)));
        }
        let boot = now - up;
        text.push_str(&format!(
            "intr 0\nctxt 0\nbtime {boot}\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n"
        ));
        text
    }
}

/// A file below `/proc/sys` that is another one each time that it is read.
pub(super) const UUID: &str = "kernel/random/uuid";

/// Files of `/proc/sys`, from the one below `proc`.
pub(super) fn settings(proc: &Path) -> Vec<(&'static str, String)> {
    let read = |name: &&'static str| {
        let content = fs::read_to_string(proc.join("sys").join(name)).ok()?;
        Some((*name, content))
    };
    let mut files: Vec<_> = COPIED.iter().filter_map(read).collect();
    // Of the machine it would be a name for it; each job has another one.
    if let Ok(id) = fs::read_to_string(proc.join("sys").join(UUID)) {
        files.push(("kernel/random/boot_id", id));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_its_own_memory_and_processors() {
        let facts = Facts {
            memory: 64 << 20,
            processes: 3,
            processors: vec![1, 3],
        };
        let machines = "processor\t: 0\nmodel\t: x\n\nprocessor\t: 1\nmodel\t: y\n\n\
                        processor\t: 3\nmodel\t: z\n\nHardware\t: board\n";
        let expected =
            "processor\t: 1\nmodel\t: y\n\nprocessor\t: 3\nmodel\t: z\n\nHardware\t: board\n";
        assert_eq!(facts.cpuinfo(machines), expected);
        assert!(
            facts
                .meminfo("")
                .starts_with("MemTotal:          65536 kB\n")
        );
        let stat = facts.stat();
        let names: Vec<_> = stat.lines().filter_map(|it| it.split(' ').next()).collect();
        assert_eq!(names[..3], ["cpu", "cpu1", "cpu3"]);
        assert!(
            facts
                .cgroup()
                .contains(&("memory.max", "67108864\n".to_owned()))
        );
        assert!(
            facts
                .node()
                .contains(&("node0/cpulist", "1,3\n".to_owned()))
        );
    }
}
