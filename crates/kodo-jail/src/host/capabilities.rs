//! Which of the jail's mechanisms this machine has, for `kodo doctor`.

use super::cgroup::NoCgroups;
use super::jail::Jail;
use super::shared::JailConfig;
use kodo_sandbox::SandboxError;

/// One mechanism, tried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name, a word for programs; the same that a refusal names.
    pub mechanism: String,
    /// Whether it is there.
    pub available: bool,
    /// What was seen.
    pub detail: String,
    /// What to do if it is missing or weaker than it could be.
    pub hint: Option<String>,
}

/// What this machine has of what a jail needs.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// One for each mechanism; the first, `jail`, is a job in all of them.
    pub findings: Vec<Finding>,
}

impl Capabilities {
    /// Finds out by running a job that does nothing: that a file or a flag exists proves nothing.
    pub async fn probe(config: JailConfig) -> Self {
        let jail = Jail::new(config);
        let mut findings = vec![match jail.try_out().await {
            Ok(result) if result.exit_code() == 0 => {
                let words: Vec<_> = result
                    .enforced
                    .iter()
                    .map(|(name, what)| format!("{name}: {what}"))
                    .collect();
                Finding {
                    mechanism: "jail".to_owned(),
                    available: true,
                    detail: format!("a job ran in it ({})", words.join("; ")),
                    hint: None,
                }
            }
            Ok(result) => Finding {
                mechanism: "jail".to_owned(),
                available: false,
                detail: format!(
                    "a job that does nothing ended with {}: {}",
                    result.exit_code(),
                    result.stderr.text().trim()
                ),
                hint: None,
            },
            Err(error) => Finding {
                mechanism: "jail".to_owned(),
                available: false,
                detail: error.to_string(),
                hint: hint_for(&error).map(str::to_owned),
            },
        }];
        findings.push(match jail.shared.cgroups() {
            Ok(cgroups) => Finding {
                mechanism: "cgroup".to_owned(),
                available: true,
                detail: format!("{} bounds memory and processes", cgroups.describe()),
                hint: None,
            },
            Err(NoCgroups { reason, .. }) => Finding {
                mechanism: "cgroup".to_owned(),
                available: false,
                detail: format!("{reason}; jobs are watched instead, which is weaker"),
                hint: Some(hint("cgroup").to_owned()),
            },
        });
        let landlock = crate::sys::landlock_version();
        findings.push(Finding {
            mechanism: "landlock".to_owned(),
            available: landlock > 0,
            detail: match landlock {
                0 => "the kernel has none, or it is switched off".to_owned(),
                1..6 => format!("version {landlock}: signals and abstract sockets are kept in by namespaces alone"),
                _ => format!("version {landlock}"),
            },
            hint: (landlock == 0).then(|| hint("landlock").to_owned()),
        });
        Self { findings }
    }

    /// Whether jobs can be run here.
    #[must_use]
    pub fn can_jail(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.mechanism == "jail" && finding.available)
    }
}

/// What to do about a job that was refused, in a sentence without a capital and a full stop.
#[must_use]
pub fn hint_for(error: &SandboxError) -> Option<&'static str> {
    match error {
        SandboxError::Refused { mechanism, .. } => Some(hint(mechanism)),
        SandboxError::Shortage { .. } => Some(
            "the kernel had too little of something for a moment; SBX_SHORTAGE_MS is how long a job waits for it",
        ),
        _ => None,
    }
}

fn hint(mechanism: &str) -> &'static str {
    match mechanism {
        "user-namespace" => {
            "allow user namespaces: sysctl user.max_user_namespaces above 0, \
             kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for kodo, \
             and in a container a seccomp profile that permits unshare"
        }
        "mount-namespace" => {
            "allow mounts in user namespaces: in a container, a seccomp and an AppArmor profile that permit mount"
        }
        "landlock" => "use a kernel from 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in lsm=",
        "seccomp" => "use a kernel with CONFIG_SECCOMP_FILTER",
        "cgroup" => {
            "run the service where it may make cgroups: as a systemd service with Delegate=yes and \
             DelegateSubgroup=service, or name a delegated group with SBX_CGROUP"
        }
        "memory-limit" => {
            "let the service make cgroups, or let /proc be mounted in user namespaces"
        }
        "leave-root" => "start the service as an ordinary user",
        "own-program" => {
            "install kodo where every user can read it, and start the service again after an update"
        }
        "read-only-folder" => "correct SBX_READ_ONLY",
        _ => "see docs/sandbox.md",
    }
}
