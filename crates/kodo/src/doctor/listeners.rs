//! Who listens on a port, as far as `/proc` shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The processes that listen on a TCP port, as `process PID (COMMAND)`; `None` if they are another user's or another
/// container's.
pub(crate) fn who(port: u16) -> Option<String> {
    let who: Vec<String> = listeners(port)
        .iter()
        .map(|it| format!("process {} ({})", it.pid, it.command))
        .collect();
    (!who.is_empty()).then(|| who.join(", "))
}

/// A process that listens.
#[derive(Debug)]
struct Listener {
    pid: u32,
    /// Its command line, without secrets, shortened.
    command: String,
}

fn listeners(port: u16) -> Vec<Listener> {
    let inodes: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| sockets(&table, port))
        .collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| has_socket(*pid, &inodes))
        .map(|pid| Listener {
            pid,
            command: command_line(pid),
        })
        .collect()
}

/// Inodes of the sockets that listen on a port: columns 2, 4 and 10 of `/proc/net/tcp` (proc(5)).
fn sockets(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| {
            columns.len() > 9 && columns[1].ends_with(&suffix) && columns[3] == LISTEN
        })
        .map(|columns| columns[9].to_owned())
        .collect()
}

fn has_socket(pid: u32, inodes: &BTreeSet<String>) -> bool {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| {
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(inode))
        })
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    readable(text.split('\0').filter(|argument| !argument.is_empty()))
}

/// Arguments on one line, at most a hundred characters, without what follows `--…password` and `--…token`.
fn readable<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut hide = false;
    for argument in arguments {
        let name = argument.split('=').next().unwrap_or_default();
        let secret =
            name.starts_with("--") && (name.ends_with("password") || name.ends_with("token"));
        words.push(match (hide, secret && argument.contains('=')) {
            (true, _) => "***".to_owned(),
            (false, true) => format!("{name}=***"),
            (false, false) => argument.to_owned(),
        });
        hide = !hide && secret && !argument.contains('=');
    }
    let line = words.join(" ");
    match line.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_with_its_command() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listeners(listener.local_addr().unwrap().port());
        let me = found
            .iter()
            .find(|it| it.pid == std::process::id())
            .unwrap();
        assert!(me.command.contains("kodo"), "{me:?}");
    }

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0\n\
             1: 0100007F:0BB9 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0\n\
             2: 0100007F:0BBA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0\n";
        assert_eq!(sockets(table, 3001), ["111"]);
    }

    #[test]
    fn secrets_on_a_command_line_are_not_shown() {
        let line = ["kodo", "--db-password", "a b", "--api-token=x", "serve"];
        assert_eq!(
            readable(line.into_iter()),
            "kodo --db-password *** --api-token=*** serve"
        );
    }
}
