//! Watching memory and processes from the jail's first process, where no cgroup bounds them.
//!
//! Weaker than a cgroup, and reported as such: it looks every few milliseconds, so a job can be over its bound
//! for that long, and memory of the kernel on the job's behalf (socket buffers, for instance) is not seen.

use std::fs;
use std::path::Path;

use kodo_sandbox::Limits;

/// What was seen at one look.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) memory: u64,
    pub(crate) processes: u64,
}

/// Adds up what the job holds: its processes' own memory, and its files, which are memory too.
///
/// Resident memory first, which counts a page that two processes share twice and is quick to read; only where
/// that is over the bound, each process's share, which is exact.
pub(crate) fn look(limits: &Limits, files: u64) -> Seen {
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

/// Every process but the first, which is the jail's own.
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
    fn fields_are_read_by_their_whole_name() {
        let text = "RssAnon:\t  12 kB\nRssFile:\t 3 kB\nThreads:\t7\n";
        assert_eq!(field(text, "RssAnon:"), 12 * 1024);
        assert_eq!(plain(text, "Threads:"), 7);
        assert_eq!(field(text, "RssShmem:"), 0);
    }
}
