//! Free ports for servers that are started later, or again and again.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::ensure;

/// Below the range that systems choose ports of outgoing connections from: until the server listens, or while it is down,
/// nobody is given its port by chance.
const RANGE: std::ops::Range<u16> = 14_000..32_000;

/// Ports that nobody listens on now, each one another.
///
/// # Errors
/// If so many are not found.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // Drawn anew each time: two processes may look at the same moment.
    let tries = std::iter::repeat_with(|| fastrand::u16(RANGE)).take(100 * count);
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    let held: Vec<_> = tries.filter_map(listen).take(count).collect();
    ensure!(
        held.len() == count,
        "fewer than {count} ports are free in {RANGE:?}"
    );
    let ports = held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_taken() {
        let ports = free_ports(6).unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 6);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }
}
