//! The `mise` tasks, as far as they decide anything themselves.

use std::net::{Ipv4Addr, TcpListener};

use crate::program::in_repository;

#[tokio::test]
async fn a_variable_of_the_caller_wins_over_whatever_mise_sets() {
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = busy.local_addr().unwrap().port();
    // The tasks that `start` depends on build and bring up a database: both are there, or no test would run.
    let start = ["run", "--skip-deps", "start"];
    for (environment, variable) in [
        (
            [("PORT", port.to_string()), ("ADMIN_PORT", "0".into())],
            "PORT",
        ),
        (
            [("PORT", "0".into()), ("ADMIN_PORT", port.to_string())],
            "ADMIN_PORT",
        ),
    ] {
        let environment = environment
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let ended = in_repository("bin/mise", &start, &environment).await;
        let line = format!(
            "EADDRINUSE: 127.0.0.1:{port} is taken by another program; set {variable} to a free port"
        );
        assert!(ended.stderr.contains(&line), "{ended:?}");
        // The exit code of a failing task is its command's.
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
}
