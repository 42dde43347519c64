//! The origins whose pages may call this server.

/// The origins of pages that were loaded from this server, by its host and by the names of the loopback interface.
#[must_use]
pub fn origins_of(host: &str, port: u16) -> Vec<String> {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut hosts = vec![
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "[::1]".to_owned(),
    ];
    if !hosts.contains(&host) {
        hosts.push(host);
    }
    // Browsers leave the default port out of an origin.
    let suffix = if port == 80 {
        String::new()
    } else {
        format!(":{port}")
    };
    hosts
        .into_iter()
        .map(|host| format!("http://{host}{suffix}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        assert_eq!(
            origins_of("127.0.0.1", 3001),
            [
                "http://127.0.0.1:3001",
                "http://localhost:3001",
                "http://[::1]:3001"
            ]
        );
        assert_eq!(origins_of("::1", 80).last().unwrap(), "http://[::1]");
        assert_eq!(
            origins_of("fe80::1", 1).last().unwrap(),
            "http://[fe80::1]:1"
        );
        assert_eq!(
            origins_of("kodo.example", 8080).last().unwrap(),
            "http://kodo.example:8080"
        );
    }
}
