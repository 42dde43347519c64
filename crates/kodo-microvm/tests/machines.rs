//! The provider `microvm` is a sandbox like every other, and its machines hold. By software emulation, which every
//! machine can: minutes. `test:microvm` makes what it needs and runs it; `cargo test` alone leaves it out.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kodo_microvm::{Acceleration, Launcher, MicroVm, MicroVmConfig, probe_kvm};
use kodo_sandbox::{Ended, JobSpec, Sandbox};

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-microvm-probe");

#[expect(
    clippy::disallowed_methods,
    reason = "where the task has put what it made"
)]
fn folder() -> PathBuf {
    let folder = std::env::var_os("SBX_MICROVM_DIR").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.data/microvm"))
}

fn config(ready: usize) -> MicroVmConfig {
    MicroVmConfig {
        folder: folder(),
        acceleration: Acceleration::Tcg,
        ready,
        launcher: Launcher::program(PROBE.into()),
        ..MicroVmConfig::default()
    }
}

/// A sandbox whose machines are ready for a test, so that its times are those of jobs and not of kernels.
async fn sandbox() -> MicroVm {
    let sandbox = MicroVm::start(config(1)).await.unwrap();
    sandbox.ready().await;
    sandbox
}

mod with_software_emulation {
    kodo_sandbox::for_every_sandbox!(super::sandbox().await);
    kodo_sandbox::for_sandboxes_that_run!(super::sandbox().await);
}

/// Every emulator on this machine that one of our processes, or one that is dead, has started.
fn emulators_of(ours: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which is in brackets: state, parent.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if state != Some("Z") && parent == Some(&ours.to_string()) {
            found.insert(pid);
        }
    }
    found
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn holding() -> Child {
    let mut child = Command::new(PROBE)
        .arg("hold")
        .arg(folder())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.as_mut().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    assert_eq!(line, "holding\n");
    child
}

#[test]
fn no_emulator_outlives_a_service_that_is_killed() {
    let mut service = holding();
    until("there are emulators", || {
        !emulators_of(service.id()).is_empty()
    });
    let emulators = emulators_of(service.id());
    service.kill().unwrap();
    service.wait().unwrap();
    until("they end with it", || {
        emulators.iter().all(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

#[test]
fn an_emulator_is_an_ordinary_user_with_no_rights_and_a_filter_of_system_calls() {
    let mut service = holding();
    until("there are emulators", || {
        !emulators_of(service.id()).is_empty()
    });
    for pid in emulators_of(service.id()) {
        // One that is on its way to become the emulator is not one yet.
        until("it is the emulator", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.starts_with("qemu"))
        });
        let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        until("its filter holds", || status().contains("\nSeccomp:\t2\n"));
        let status = status();
        let users = status.lines().find(|it| it.starts_with("Uid:")).unwrap();
        assert!(
            users.split_whitespace().skip(1).all(|it| it != "0"),
            "{users}"
        );
        assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
        assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0').filter(|it| !it.is_empty());
        assert!(
            variables.all(|it| it.starts_with("LD_LIBRARY_PATH=")),
            "{environment}"
        );
    }
    service.kill().unwrap();
    service.wait().unwrap();
}

#[tokio::test]
async fn a_machine_is_one_of_its_own_without_a_network_and_without_anything_of_this_one() {
    let sandbox = sandbox().await;
    let result = sandbox
        .run(&JobSpec::new([
            "/bin/sh",
            "-c",
            "uname -r; cat /proc/net/dev 2>/dev/null; ls -A /job / ",
        ]))
        .await
        .unwrap();
    let out = result.stdout.text();
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(
        !out.contains(own.trim()),
        "the kernel is another one: {out}"
    );
    assert!(!out.contains("eth0"), "{out}");
    for name in [
        "machine", "kernel", "emulator", "network", "memory", "seccomp",
    ] {
        assert!(
            result.enforced.contains_key(name),
            "{name}: {:?}",
            result.enforced
        );
    }
}

#[tokio::test]
async fn no_machine_is_used_twice() {
    let sandbox = sandbox().await;
    let identity = "cat /proc/sys/kernel/random/boot_id 2>/dev/null; cut -d. -f1 /proc/uptime 2>/dev/null; hostname";
    let left = "echo left > /tmp/left; ls -A /tmp";
    for script in [left, left, identity] {
        let job = JobSpec::new(["/bin/sh", "-c", script]);
        let out = sandbox.run(&job).await.unwrap().stdout.text();
        assert!(script == identity || out == "left\n", "{out}");
    }
}

#[tokio::test]
async fn a_job_that_needs_more_memory_than_a_machine_has_gets_a_larger_one() {
    let mut config = config(0);
    config.memory_mib = 160;
    let sandbox = MicroVm::start(config).await.unwrap();
    // More than a machine of that size has in all.
    let mut job = JobSpec::new([
        "/bin/sh",
        "-c",
        "dd if=/dev/zero of=f bs=1M count=200 2>/dev/null && wc -c < f; rm f",
    ]);
    job.limits.memory_bytes = 256 << 20;
    let result = sandbox.run(&job).await.unwrap();
    assert_eq!(result.ended, Ended::Exited(0), "{}", result.stderr.text());
    assert_eq!(result.stdout.text().trim(), "209715200");
}

#[tokio::test]
async fn images_that_are_not_there_refuse_and_name_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let error = MicroVm::start(MicroVmConfig {
        folder: empty.path().to_owned(),
        ..config(0)
    })
    .await
    .err()
    .unwrap();
    assert_eq!(error.code(), "sandbox_refused");
    assert!(error.to_string().contains("vmlinux"), "{error}");
}

#[tokio::test]
async fn a_kernel_that_is_none_is_said_with_what_the_emulator_says() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for name in ["vmlinux", "initrd", "system.img"] {
        fs::write(folder.path().join(name), "this is no kernel").unwrap();
    }
    let emulator = self::folder().canonicalize().unwrap().join("qemu");
    if emulator.exists() {
        std::os::unix::fs::symlink(emulator, folder.path().join("qemu")).unwrap();
    }
    let sandbox = MicroVm::start(MicroVmConfig {
        folder: folder.path().to_owned(),
        ..config(0)
    })
    .await
    .unwrap();
    let error = sandbox.try_out().await.unwrap_err();
    assert_eq!(error.code(), "sandbox_unavailable");
    assert!(error.to_string().contains("the machine"), "{error}");
}

/// Not a test of KVM, which few test machines have, but of the probe: it answers in bounded time, and a machine
/// that it calls good is good.
#[tokio::test]
async fn kvm_is_used_only_where_a_guest_has_come_up_with_it() {
    let began = Instant::now();
    let config = MicroVmConfig {
        acceleration: Acceleration::Kvm,
        ..config(0)
    };
    let probed = tokio::task::spawn_blocking({
        let config = config.clone();
        move || probe_kvm(&config)
    })
    .await
    .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    match probed {
        Ok(_) => {
            let sandbox = MicroVm::start(config).await.unwrap();
            assert_eq!(sandbox.try_out().await.unwrap().exit_code(), 0);
        }
        Err(error) => {
            assert!(error.to_string().contains("/dev/kvm"), "{error}");
            let refused = MicroVm::start(config).await.err().unwrap();
            assert_eq!(refused.code(), "sandbox_refused", "{refused}");
        }
    }
}
