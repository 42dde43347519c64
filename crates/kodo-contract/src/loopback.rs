//! Which hosts are this machine, and so need neither TLS nor a token.

use std::net::IpAddr;

/// Whether a host, as URLs and settings name it, is this machine: `localhost`, or a loopback address, also one in brackets
/// and an IPv4 address written as IPv6.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|it| it.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_many_names_and_no_other_machine_has_one_of_them() {
        for here in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in [
            "",
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "128.0.0.1",
        ] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
