//! What a job must not be able to do: each thing tried in the jail, where it must be held, and once more with the
//! matching defences missing, where it must not: a probe that cannot fail proves nothing.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kodo_jail::{CgroupPolicy, Defence, Helper, Jail, JailConfig};
use kodo_sandbox::{Ended, JobResult, JobSpec, Reason, Sandbox};

#[path = "attacks/bounds.rs"]
mod bounds;
#[path = "attacks/ends.rs"]
mod ends;
#[path = "attacks/machine.rs"]
mod machine;
#[path = "attacks/network.rs"]
mod network;
#[path = "shared/ordinary_user.rs"]
mod ordinary_user;

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-jail-probe");

use Defence::*;

/// Exit codes of the probe.
const HELD: i32 = 0;
const NOT_HELD: i32 = 10;

/// A jail without some of its defences. Memory and processes are watched, so that what a cgroup would hold
/// besides does not hide what is missing.
fn jail(without: &[Defence], read_only: &Path, tracing: bool) -> Jail {
    let mut arguments: Vec<OsString> = vec!["jail-init".into()];
    if !without.is_empty() {
        arguments = vec!["weakened".into()];
        arguments.extend(without.iter().map(|it| it.as_str().into()));
    }
    let helper = Helper::program(ordinary_user::helper(), arguments);
    Jail::new(JailConfig {
        ready: 0,
        cgroup: CgroupPolicy::Never,
        helper: match without.contains(&Environment) {
            true => helper.with_environment(),
            false => helper,
        },
        read_only: vec![read_only.to_owned()],
        tracing,
        ..JailConfig::default()
    })
}

/// A folder that everybody can write to, where neither the jail has one of its own nor Landlock lets a job in.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(ordinary_user::folder()).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

fn attack(words: &[&str]) -> JobSpec {
    let mut argv = vec!["probe", "attack"];
    argv.extend(words);
    let mut job = JobSpec::new(argv);
    job.limits.wall = Duration::from_secs(20);
    job.limits.processes = 16;
    job
}

async fn run(job: &JobSpec, without: &[Defence]) -> JobResult {
    run_where(job, without, false).await
}

async fn run_where(job: &JobSpec, without: &[Defence], tracing: bool) -> JobResult {
    let folder = open_folder();
    let probe = folder.path().join("probe");
    ordinary_user::copy_program(&ordinary_user::helper(), &probe);
    let mut job = job.clone();
    if job.argv[0] == "probe" {
        job.argv[0] = probe.to_str().unwrap().to_owned();
    }
    let result = jail(without, folder.path(), tracing).run(&job).await;
    result.unwrap_or_else(|error| panic!("{:?} without {without:?}: {error}", job.argv))
}

async fn verdict(words: &[&str], without: &[Defence]) -> (JobResult, String) {
    let result = run(&attack(words), without).await;
    let text = format!("{}{}", result.stdout.text(), result.stderr.text());
    let text = format!("{words:?} without {without:?}: {:?} {text}", result.ended);
    (result, text)
}

/// Held in the jail, and not held without these defences.
async fn held_by(words: &[&str], without: &[Defence]) {
    held(words).await;
    not_held(words, without).await;
}

async fn held(words: &[&str]) {
    let (result, text) = verdict(words, &[]).await;
    assert_eq!(result.ended, Ended::Exited(HELD), "{text}");
}

async fn not_held(words: &[&str], without: &[Defence]) {
    let (result, text) = verdict(words, without).await;
    assert_eq!(result.exit_code(), NOT_HELD, "{text}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Such a folder with a file that everybody can read, and a name that is free in it.
fn canary() -> (tempfile::TempDir, String, String) {
    let folder = open_folder();
    let file = folder.path().join("canary");
    fs::write(&file, "secret").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let written = folder.path().join("written").to_str().unwrap().to_owned();
    let file = file.to_str().unwrap().to_owned();
    (folder, file, written)
}

#[test]
fn all_of_it_is_held_from_an_ordinary_user_too() {
    ordinary_user::run_this_suite("all_of_it_is_held_from_an_ordinary_user_too");
}

// ---- files ----

#[tokio::test]
async fn files_of_the_machine_are_not_there() {
    let (_folder, canary, written) = canary();
    held_by(&["read-file", &canary], &[Root, Landlock]).await;
    held_by(&["write-folder", &written], &[Root, Landlock]).await;
    for path in [
        "/etc/shadow",
        "/root/.profile",
        "/var/run/docker.sock",
        "/etc/ssl/private",
        "/etc/machine-id",
        "/etc/ssh/sshd_config",
        "/boot",
        "/var/lib",
        "/var/log",
    ] {
        held(&["read-file", path]).await;
    }
    held(&["write-system"]).await;
    for path in ["/etc/ssl/certs", "/etc/alternatives", "/dev", "/var"] {
        held(&["write-into", path]).await;
    }
    // The two layers hold each without the other.
    let landlock_alone = run(&JobSpec::new(["cat", &canary]), &[Root]).await;
    assert!(landlock_alone.stderr.text().contains("Permission denied"));
    let neither = run(&JobSpec::new(["cat", &canary]), &[Root, Landlock]).await;
    assert_eq!(neither.stdout.text(), "secret");
}

#[tokio::test]
async fn a_job_of_the_machines_user_0_is_not_the_machines_user_0() {
    held(&["machine-user-0"]).await;
    held(&["open-for-writing", "/proc/sys/kernel/core_pattern"]).await;
    if is_root() {
        not_held(&["machine-user-0"], &[LeaveRoot]).await;
        // A host escape, if it were written to. It is opened and closed.
        not_held(
            &["open-for-writing", "/proc/sys/kernel/core_pattern"],
            &[LeaveRoot, Proc],
        )
        .await;
    }
}

#[tokio::test]
async fn rights_are_gone_and_do_not_come_back() {
    held_by(&["capabilities"], &[Capabilities]).await;
    held_by(
        &["no-new-privileges"],
        &[NoNewPrivileges, Landlock, Seccomp],
    )
    .await;
}

#[tokio::test]
async fn a_debugger_is_refused_and_where_it_is_permitted_reaches_the_jobs_own_processes_alone() {
    held_by(&["trace-own"], &[Seccomp]).await;
    let tracing = async |words: &[&str]| run_where(&attack(words), &[], true).await;
    let own = tracing(&["trace-own"]).await;
    assert_eq!(own.exit_code(), NOT_HELD, "{}", own.stdout.text());
    for words in ["trace-first", "read-first-memory"] {
        let first = tracing(&[words]).await;
        assert_eq!(first.exit_code(), HELD, "{}", first.stdout.text());
    }
    let around = tracing(&["trace-around-the-filter"]).await;
    assert_eq!(around.exit_code(), HELD, "{}", around.stdout.text());
    assert!(around.stdout.text().contains("returned -1"));
    not_held(&["trace-around-the-filter"], &[Seccomp]).await;
}

#[tokio::test]
async fn terminals_are_the_jobs_own_and_few() {
    let machines = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
    rustix::pty::grantpt(&machines).unwrap();
    rustix::pty::unlockpt(&machines).unwrap();
    let name = rustix::pty::ptsname(&machines, Vec::new()).unwrap();
    let name = name.to_str().unwrap();
    fs::set_permissions(name, fs::Permissions::from_mode(0o666)).unwrap();
    held_by(&["open-for-writing", name], &[Root, Landlock]).await;
    held_by(&["terminals", "100"], &[Terminals]).await;
    held_by(&["line-discipline"], &[Seccomp]).await;
}

// ---- what leaks ----

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "what must not reach the program has to be here"
)]
async fn the_services_environment_is_not_there() {
    // Set by whoever runs tests of a crate.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    held_by(&["environment", "CARGO_MANIFEST_DIR"], &[Environment]).await;
    held_by(
        &["first-environment"],
        &[Proc, Undumpable, Capabilities, Landlock],
    )
    .await;
}

#[tokio::test]
async fn the_services_descriptors_are_not_there() {
    let (_folder, canary, _) = canary();
    let secret = fs::File::open(canary).unwrap();
    // As a library might leave one: inherited by whatever this process starts.
    rustix::io::fcntl_setfd(secret.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    held_by(&["descriptors"], &[Descriptors]).await;
}

#[tokio::test]
async fn the_session_is_the_jobs_own() {
    held_by(&["session"], &[Session]).await;
}

#[tokio::test]
async fn every_namespace_is_the_jobs_own() {
    for (name, defence) in [
        ("net", NetNamespace),
        ("ipc", IpcNamespace),
        ("uts", UtsNamespace),
        ("cgroup", CgroupNamespace),
    ] {
        let machines = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        held_by(&["namespace", name, machines.to_str().unwrap()], &[defence]).await;
    }
    let machines = fs::read_link("/proc/self/ns/pid").unwrap();
    // Without a pid namespace there is no /proc of its own either: the machine's.
    held_by(
        &["namespace", "pid", machines.to_str().unwrap()],
        &[PidNamespace, Root, Landlock],
    )
    .await;
    for name in ["user", "mnt"] {
        let machines = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        held(&["namespace", name, machines.to_str().unwrap()]).await;
    }
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_str().unwrap();
    held_by(&["host-name", machine], &[UtsNamespace]).await;
}

#[tokio::test]
async fn processes_of_the_machine_do_not_exist() {
    let own = std::process::id().to_string();
    held_by(&["see-process", &own], &[PidNamespace, Landlock]).await;
}

#[tokio::test]
async fn the_first_process_is_out_of_reach() {
    held_by(&["signal-first"], &[Landlock]).await;
    held_by(
        &["trace-first"],
        &[Seccomp, Landlock, Undumpable, Capabilities],
    )
    .await;
}

// ---- the kernel's surface ----

#[tokio::test]
async fn what_the_kernel_offers_beyond_programs_needs_is_refused() {
    for words in [
        "new-user-namespace",
        "clone-user-namespace",
        "clone3",
        "bpf",
        "perf",
        "io-uring",
        "keyring",
        "add-key",
        "userfaultfd",
        "read-process-memory",
        "personality",
        "device-node",
        "type-into-terminal",
    ] {
        held_by(&[words], &[Seccomp]).await;
    }
    held_by(&["mount"], &[Seccomp, Capabilities, Landlock]).await;
}

#[tokio::test]
async fn the_door_of_older_programs_is_no_way_around_the_filter() {
    let (result, text) = verdict(&["old-calls"], &[Seccomp]).await;
    if result.exit_code() == NOT_HELD && text.contains("0x0\n") {
        held(&["old-calls"]).await;
    } else {
        eprintln!("this machine's kernel has no 32-bit calls: {text}");
    }
}

// ---- what it may use ----

#[tokio::test]
async fn an_explanation_names_what_was_refused_and_changes_none_of_it() {
    let folder = open_folder();
    let probe = folder.path().join("probe");
    ordinary_user::copy_program(&ordinary_user::helper(), &probe);
    let jail = Jail::new(JailConfig {
        read_only: vec![folder.path().to_owned()],
        helper: Helper::program(ordinary_user::helper(), vec!["jail-init".into()]),
        explain: true,
        ..JailConfig::default()
    });
    for (words, rule) in [
        (
            &["new-user-namespace"][..],
            "unshare: namespaces and mounts",
        ),
        (&["clone-user-namespace"], "clone: namespaces"),
        (&["keyring"], "keyctl: the kernel's larger surfaces"),
        (&["trace-own"], "SBX_ALLOW_PTRACE"),
        (&["device-node"], "devices"),
        (&["socket", "16", "3", "12"], "socket: other kinds"),
        (&["personality"], "personality"),
        (&["line-discipline"], "line disciplines"),
        (
            &["read-file", "/srv/data"],
            "/srv/data: not in the job's file tree",
        ),
        (
            &["withheld", "/proc/interrupts"],
            "/proc/interrupts: of the machine",
        ),
        (&["write-system"], "/usr/x: read-only"),
        (&["connect", "192.0.2.1:53"], "192.0.2.1: no network"),
    ] {
        let mut job = attack(words);
        job.argv[0] = probe.to_str().unwrap().to_owned();
        let result = jail.run(&job).await.unwrap();
        let text = result.stdout.text();
        assert_eq!(result.ended, Ended::Exited(HELD), "{words:?}: {text}");
        let refused = &result.enforced["refused"];
        assert!(refused.contains(rule), "{words:?}: {refused}");
    }
    let nothing = jail.run(&JobSpec::new(["true"])).await.unwrap();
    assert_eq!(nothing.enforced["refused"], "");
}

#[tokio::test]
async fn what_is_missing_refuses_the_job_and_is_named() {
    let config = JailConfig {
        read_only: vec!["/no/such/folder".into()],
        helper: Helper::program(ordinary_user::helper(), vec!["jail-init".into()]),
        ..JailConfig::default()
    };
    let error = Jail::new(config).try_out().await.unwrap_err();
    assert_eq!(error.code(), "sandbox_refused");
    assert!(error.to_string().contains("read-only-folder"), "{error}");
}
