//! What `runsc` is told: its arguments, and the sandbox as the specification of OCI has it.
//!
//! Only what every `runsc` since 2022 knows: a word that it does not know would end it.

use crate::enclosure::Enclosure;
use serde_json::json;

use super::platform::Platform;

/// What a sandbox is called among those of its own state, where there is no other.
const NAME: &str = "job";
/// What our first process may do in its own sandbox: make the job's folders, become the job, end all of it. The job
/// itself may do none of it.
const CAPABILITIES: [&str; 6] = [
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
];

/// The arguments.
pub(crate) fn arguments(platform: Platform) -> Vec<String> {
    vec![
        format!("--root={}", Enclosure::state()),
        // It is user 0 of a namespace that has no other user, and not the machine's.
        "--rootless".to_owned(),
        "--network=none".to_owned(),
        // Its groups are the job's, which it is in already.
        "--ignore-cgroups".to_owned(),
        format!("--platform={platform}"),
        "run".to_owned(),
        format!("--bundle={}", Enclosure::bundle()),
        NAME.to_owned(),
    ]
}

/// The sandbox: a read-only tree, no network, and nothing in it but our own first process.
pub(crate) fn config() -> String {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": Enclosure::guest(),
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
