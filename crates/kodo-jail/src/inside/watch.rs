//! Watches memory and processes from the jail's init, if no cgroup limits them.
//!
//! Weaker than a cgroup, and reported as such: it looks every few milliseconds, so a job can exceed its limit for that long,
//! and memory that the kernel uses for the job (socket buffers, for instance) is not seen.

use std::fs;
use std::path::Path;
use std::time::Instant;

use kodo_sandbox::Limits;

use crate::layout::WRITABLE;

/// What was seen at one look.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) memory: u64,
    pub(crate) processes: u64,
}

/// Adds up the memory and the processes of a job.
pub(crate) struct Watch {
    /// In gVisor, the memory of all processes before the job began, as its kernel counts it.
    held_before: Option<u64>,
}

impl Watch {
    /// To be made before the job begins.
    pub(crate) fn new(in_gvisor: bool) -> Self {
        Self {
            held_before: in_gvisor.then(|| memory_of_all().0),
        }
    }

    pub(crate) fn look(&self, limits: &Limits, files: u64) -> Seen {
        match self.held_before {
            None => look(limits, files),
            Some(before) => {
                let (anonymous, shared) = memory_of_all();
                Seen {
                    // Files in memory are shared memory too; not every version counts them there at once.
                    memory: anonymous.saturating_sub(before) + shared.max(files),
                    // Not counting this process.
                    processes: u64::from(rustix::system::sysinfo().procs).saturating_sub(1),
                }
            }
        }
    }
}

/// The memory of all processes as gVisor's kernel counts it: their own, and what they share.
fn memory_of_all() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (field(&text, "AnonPages:"), field(&text, "Shmem:"))
}

/// Counts files and folders, for a kernel that does not limit them: at most a tenth of the time, and never beyond the
/// limit.
pub(crate) struct FileCount {
    most: u64,
    next: Instant,
}

impl FileCount {
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            next: Instant::now(),
        }
    }

    /// Whether there are more than allowed. Without `now`, false if it is too early to count again.
    pub(crate) fn over(&mut self, now: bool) -> bool {
        let began = Instant::now();
        if began < self.next && !now {
            return false;
        }
        let mut left = self.most;
        let within = WRITABLE
            .into_iter()
            .all(|(folder, _)| within(Path::new(folder), &mut left));
        self.next = Instant::now() + began.elapsed() * 10;
        !within
    }
}

/// Subtracts the number of files below a folder from `left`. Returns false if there are more than that.
fn within(folder: &Path, left: &mut u64) -> bool {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // The folder may have been removed meanwhile.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Some(less) = left.checked_sub(1) else {
                return false;
            };
            *left = less;
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    true
}

/// Adds up the memory of the job's processes, and of its files, which are in memory too.
///
/// First resident memory, which is quick to read but counts a page once for each process that shares it; only if that
/// exceeds the limit, each process's proportional share, which is exact.
fn look(limits: &Limits, files: u64) -> Seen {
    let mut seen = Seen {
        memory: files,
        processes: 0,
    };
    let processes = processes();
    for process in &processes {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        seen.memory += field(&status, "RssAnon:") + field(&status, "RssShmem:");
        seen.processes += plain(&status, "Threads:").max(1);
    }
    if seen.memory > limits.memory_bytes {
        seen.memory = files;
        for process in &processes {
            let shares = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
            seen.memory += field(&shares, "Pss_Anon:") + field(&shares, "Pss_Shmem:");
        }
    }
    seen
}

/// Every process except the jail's init.
fn processes() -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(Path::new("/proc")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name != "1" && name.bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(|entry| entry.path())
        .collect()
}

fn plain(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// A field in kibibytes, as bytes.
fn field(text: &str, name: &str) -> u64 {
    plain(text, name) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_as_far_as_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b/c", "b/d/e"] {
            let place = folder.path().join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("around")).unwrap();
        let mut left = 6;
        assert!(within(folder.path(), &mut left));
        assert_eq!(left, 0);
        assert!(!within(folder.path(), &mut 5));
    }

    #[test]
    fn fields_are_read_by_their_whole_name() {
        let text = "RssAnon:\t  12 kB\nRssFile:\t 3 kB\nThreads:\t7\n";
        assert_eq!(field(text, "RssAnon:"), 12 * 1024);
        assert_eq!(plain(text, "Threads:"), 7);
        assert_eq!(field(text, "RssShmem:"), 0);
    }
}
