//! How many files and connections this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that everything but the clients of the product API needs: both database pools at their default size, jobs
/// with their channels, files, clients of the admin API.
const RESERVED: u64 = 400;

/// Raises the soft limit to the hard one: 1,024 is what a shell sets for programs that call `select`, which this one does
/// not. Returns for how many clients of the product API there is room, at most `wanted`.
pub(crate) fn room_for_clients(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.current = limit.maximum,
            Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
        }
    }
    let Some(limit) = limit.current else {
        return wanted;
    };
    let room = limit.saturating_sub(RESERVED).max(limit / 4).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            limit,
            connections = room,
            "the limit of open files (ulimit -n) leaves no room for MAX_CONNECTIONS={wanted}"
        );
    }
    room.min(wanted)
}
