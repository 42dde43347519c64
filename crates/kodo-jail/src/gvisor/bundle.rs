//! The arguments of `runsc`, and the sandbox in the form of the OCI runtime specification.
//!
//! Only what every `runsc` since 2022 knows: it exits on an option that it does not know.

use crate::layout::{BUNDLE, GUEST, GUEST_ARGUMENT, STATE};
use serde_json::json;

use super::platform::Platform;

/// The sandbox's id in its state folder, which has no other.
const NAME: &str = "job";
/// The capabilities of our init inside the sandbox: to make the job's folders, to enter those and count their files however
/// the job has closed them, to become the job's user, and to kill all of it. The job itself has none.
const CAPABILITIES: [&str; 7] = [
    "CAP_CHOWN",
    "CAP_DAC_READ_SEARCH",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
];

/// The arguments.
pub(crate) fn arguments(platform: Platform) -> Vec<String> {
    vec![
        format!("--root={STATE}"),
        // `runsc` is user 0 of a user namespace that maps no other user, and not the machine's.
        "--rootless".to_owned(),
        "--network=none".to_owned(),
        // It is in the job's cgroups already.
        "--ignore-cgroups".to_owned(),
        format!("--platform={platform}"),
        "run".to_owned(),
        format!("--bundle={BUNDLE}"),
        NAME.to_owned(),
    ]
}

/// The sandbox: a read-only file tree, no network, and our own init as its one process.
pub(crate) fn config() -> String {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [GUEST, GUEST_ARGUMENT],
            "env": [],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "jail",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
        ]},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_no_network_no_writable_tree_and_the_platform_that_was_asked_for() {
        for platform in Platform::ALL {
            let arguments = arguments(platform);
            assert!(arguments.contains(&format!("--platform={platform}")));
            assert!(arguments.contains(&"--network=none".to_owned()));
        }
        let config: serde_json::Value = serde_json::from_str(&config()).unwrap();
        assert_eq!(config["root"]["readonly"], true);
        assert_eq!(config["process"]["noNewPrivileges"], true);
        assert_eq!(config["process"]["args"][1], "jail-guest");
        let given = config["process"]["capabilities"].as_object().unwrap();
        assert!(!given.contains_key("inheritable") && !given.contains_key("ambient"));
    }
}
