//! The provider `gvisor` is a sandbox like every other, and what is in it is held. With the `runsc` and the platform
//! that `SBX_RUNSC` and `SBX_GVISOR_PLATFORM` name: `test:gvisor` fetches one where there is none; `cargo test` alone
//! leaves this out.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kodo_jail::gvisor::{Gvisor, GvisorConfig, Platform, hint_for};
use kodo_jail::{CgroupPolicy, Helper, JailConfig};
use kodo_sandbox::{Ended, JobResult, JobSpec, Sandbox};

#[path = "shared/ordinary_user.rs"]
mod ordinary_user;

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-jail-probe");

#[expect(clippy::disallowed_methods, reason = "what the task has found")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn runsc() -> PathBuf {
    let named = variable("SBX_RUNSC").unwrap_or_else(|| "runsc".to_owned());
    PathBuf::from(named)
}

fn platform() -> Platform {
    variable("SBX_GVISOR_PLATFORM").map_or_else(Platform::default, |word| {
        Platform::of(&word).expect("SBX_GVISOR_PLATFORM is no platform")
    })
}

fn config() -> GvisorConfig {
    GvisorConfig {
        runsc: runsc(),
        search: variable("PATH").map(Into::into),
        platform: platform(),
        jail: JailConfig {
            helper: Helper::program(ordinary_user::helper(), vec!["jail-init".into()]),
            ..JailConfig::default()
        },
        ..GvisorConfig::default()
    }
}

async fn sandbox() -> Gvisor {
    Gvisor::start(config()).await.unwrap()
}

mod with_what_the_machine_gives {
    kodo_sandbox::for_every_sandbox!(super::sandbox().await);
    kodo_sandbox::for_sandboxes_that_run!(super::sandbox().await);
}

/// The same as an ordinary user, who has no cgroup to put a job in unless somebody gave one away.
#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    ordinary_user::run_this_suite("all_of_it_holds_for_an_ordinary_user");
}

fn shell(script: &str) -> JobSpec {
    JobSpec::new(["/bin/sh", "-c", script])
}

// ---- what a job sees ----

#[tokio::test]
async fn the_kernel_is_gvisors_and_every_result_says_what_held_the_job() {
    let result = sandbox().await.run(&shell("uname -rv")).await.unwrap();
    let seen = result.stdout.text();
    let machines = rustix::system::uname();
    let machines = machines.release().to_str().unwrap();
    assert!(
        !seen.contains(machines),
        "{seen}: the machine's own is {machines}"
    );
    let kernel = &result.enforced["kernel"];
    assert!(kernel.contains(platform().as_str()), "{kernel}");
    for name in [
        "user",
        "namespaces",
        "network",
        "landlock",
        "seccomp",
        "memory",
        "processes",
        "disk",
        "inodes",
        "wall",
        "output",
    ] {
        assert!(result.enforced.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_job_finds_the_systems_folders_read_only_and_no_other_folder_of_the_machine() {
    let script = "ls -A / | grep -v lib; ls -A /var; for it in /usr/x /etc/x /x /guest /proc/sys/kernel/core_pattern; do \
                  (echo x > $it) 2>/dev/null && echo wrote $it; done; cat /etc/passwd | wc -l";
    let result = sandbox().await.run(&shell(script)).await.unwrap();
    let seen = result.stdout.text();
    assert!(!seen.contains("wrote"), "{seen}");
    let names: BTreeSet<_> = seen.lines().collect();
    assert!(names.contains("usr") && names.contains("job"), "{seen}");
    for name in [
        "home",
        "root",
        "log",
        "lib",
        "bundle",
        "state",
        "enclosure",
        "boot",
    ] {
        assert!(!names.contains(name), "{seen}");
    }
}

#[tokio::test]
async fn a_folder_that_is_asked_for_is_there_read_only() {
    let folder = open_folder();
    fs::write(folder.path().join("tool"), "found").unwrap();
    let mut config = config();
    config.jail.read_only = vec![folder.path().to_owned()];
    let sandbox = Gvisor::start(config).await.unwrap();
    let path = folder.path().display();
    let script = format!("cat {path}/tool; echo x 2>/dev/null > {path}/new || echo refused");
    let result = sandbox.run(&shell(&script)).await.unwrap();
    assert_eq!(result.stdout.text(), "foundrefused\n");
    assert!(!folder.path().join("new").exists());
}

#[tokio::test]
async fn a_required_cgroup_that_is_not_there_refuses() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = config();
    config.jail.cgroup = CgroupPolicy::Below(elsewhere.path().to_owned());
    let error = Gvisor::start(config).await.unwrap_err();
    assert!(error.to_string().contains("cgroup"), "{error}");
}

#[tokio::test]
async fn without_a_cgroup_memory_is_bounded_all_the_same_and_the_result_says_how() {
    let mut config = config();
    config.jail.cgroup = CgroupPolicy::Never;
    let sandbox = Gvisor::start(config).await.unwrap();
    let mut job = JobSpec::new(["tail", "/dev/zero"]);
    job.limits.memory_bytes = 64 << 20;
    let result = sandbox.run(&job).await.unwrap();
    assert_eq!(result.ended.reason(), Some("memory"));
    assert!(result.enforced["memory"].contains("no cgroup"));
}

// ---- attacks: the same probes as in the jail ----

/// A folder that everybody can read.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(ordinary_user::folder()).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn attacked(words: &[&str]) -> JobResult {
    let folder = open_folder();
    let probe = folder.path().join("probe");
    ordinary_user::copy_program(&ordinary_user::helper(), &probe);
    let mut config = config();
    config.jail.read_only = vec![folder.path().to_owned()];
    let mut argv = vec![probe.to_str().unwrap(), "attack"];
    argv.extend(words);
    let mut job = JobSpec::new(argv);
    job.limits.wall = Duration::from_secs(20);
    job.limits.processes = 16;
    Gvisor::start(config)
        .await
        .unwrap()
        .run(&job)
        .await
        .unwrap()
}

/// Held in the sandbox, and not held where nothing holds it: a probe that cannot fail proves nothing.
async fn held(words: &[&str]) {
    let result = attacked(words).await;
    let text = format!("{}{}", result.stdout.text(), result.stderr.text());
    assert_eq!(result.ended, Ended::Exited(0), "{words:?}: {text}");
}

fn not_held_outside(words: &[&str]) {
    let status = Command::new(ordinary_user::helper())
        .arg("attack")
        .args(words)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(10), "{words:?}: the probe can fail");
}

#[tokio::test]
async fn files_of_the_machine_are_not_there() {
    let folder = open_folder();
    let canary = folder.path().join("canary");
    fs::write(&canary, "secret").unwrap();
    let canary = canary.to_str().unwrap();
    held(&["read-file", canary]).await;
    not_held_outside(&["read-file", canary]);
    for path in [
        "/etc/shadow",
        "/root/.profile",
        "/var/run/docker.sock",
        "/boot",
    ] {
        held(&["read-file", path]).await;
    }
    held(&["write-system"]).await;
    for path in ["/dev/mem", "/dev/kmsg", "/dev/kvm"] {
        held(&["open-for-writing", path]).await;
    }
}

#[tokio::test]
async fn processes_of_the_machine_do_not_exist_and_the_first_one_is_out_of_reach() {
    let own = std::process::id().to_string();
    held(&["see-process", &own]).await;
    not_held_outside(&["see-process", &own]);
    held(&["signal-first"]).await;
    held(&["trace-first"]).await;
    let script = "tr '\\0' '\\n' < /proc/1/environ; cat /proc/1/mem || echo out of reach";
    let result = sandbox().await.run(&shell(script)).await.unwrap();
    assert_eq!(result.stdout.text(), "HOME=/\nout of reach\n");
}

#[tokio::test]
async fn there_is_no_network_but_a_loopback_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    held(&["connect", &address]).await;
    not_held_outside(&["connect", &address]);
    for address in ["169.254.169.254:80", "192.0.2.1:53"] {
        held(&["route", address]).await;
    }
    for words in [
        ["40", "1", "0"],
        ["38", "5", "0"],
        ["17", "3", "0"],
        ["2", "3", "1"],
    ] {
        held(&["socket", words[0], words[1], words[2]]).await;
    }
}

#[tokio::test]
async fn rights_descriptors_and_environment_are_those_of_the_job_alone() {
    for words in ["session", "descriptors"] {
        held(&[words]).await;
    }
    held(&["environment", "CARGO_MANIFEST_DIR"]).await;
    let script = "id -u; id -G; grep -E '^(Cap...|Seccomp):' /proc/self/status";
    let result = sandbox().await.run(&shell(script)).await.unwrap();
    let seen = result.stdout.text();
    let mut lines = seen.lines();
    assert_eq!(
        (lines.next(), lines.next()),
        (Some("1000"), Some("1000")),
        "{seen}"
    );
    assert!(
        seen.contains("CapEff:") && seen.contains("CapBnd:"),
        "{seen}"
    );
    for line in lines {
        let value = line.split_whitespace().last().unwrap();
        let expected = if line.starts_with("Seccomp") {
            "2"
        } else {
            "0000000000000000"
        };
        assert_eq!(value, expected, "{line}");
    }
}

#[tokio::test]
async fn what_the_jail_refuses_of_a_kernel_is_refused_here_too() {
    for words in [
        "new-user-namespace",
        "clone-user-namespace",
        "clone3",
        "mount",
        "bpf",
        "perf",
        "io-uring",
        "keyring",
        "userfaultfd",
        "read-process-memory",
        "device-node",
    ] {
        held(&[words]).await;
    }
}

#[tokio::test]
async fn a_bomb_of_processes_ends_at_its_bound() {
    held(&["fork", "40"]).await;
    held(&["sparse"]).await;
}

// ---- nothing is left ----

/// All processes below one of ours, by their parents.
fn below(first: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name, which is in brackets: state, parent.
            let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, parent) = (rest.next()?, rest.next()?.parse().ok()?);
            (state != "Z").then_some((pid, parent))
        })
        .collect();
    let mut found = BTreeSet::from([first]);
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            found.remove(&first);
            return found;
        }
    }
}

fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A service of its own, that has a job in a sandbox, with all that belongs to it: the helper, the first process of the
/// jail, `runsc`, its gofer and the sandbox.
fn holding() -> (Child, BTreeSet<u32>) {
    let found = search();
    let mut child = Command::new(ordinary_user::helper())
        .args(["hold", "gvisor"])
        .arg(found)
        .arg(platform().as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "holding\n");
    let service = child.id();
    let has =
        |all: &BTreeSet<u32>, word: &str| all.iter().any(|it| command_line(*it).contains(word));
    until("the sandbox is up", || {
        let all = below(service);
        has(&all, " boot ") && has(&all, " gofer ")
    });
    let all = below(service);
    (child, all)
}

/// Where `runsc` is, for a program that does not look for it.
fn search() -> PathBuf {
    let named = runsc();
    if named.components().count() > 1 {
        return named;
    }
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|it| it.join(&named))
        .find(|it| it.is_file())
        .unwrap()
}

#[test]
fn nothing_outlives_a_service_that_is_killed() {
    let (mut service, all) = holding();
    assert!(all.len() >= 5, "{all:?}");
    service.kill().unwrap();
    service.wait().unwrap();
    until("all of it ends", || all.iter().all(|pid| !is_there(*pid)));
}

#[test]
fn nothing_of_it_is_the_machines_user_0_or_in_its_namespaces_but_the_helper() {
    let (mut service, all) = holding();
    for pid in &all {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let Some(users) = status.lines().find(|it| it.starts_with("Uid:")) else {
            continue;
        };
        assert!(
            users.split_whitespace().skip(1).all(|it| it != "0"),
            "{users}"
        );
        if command_line(*pid).contains("enclosure") {
            assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
            let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net"));
            // Where this process may not look, it is not this one's.
            if let Ok(theirs) = namespace(&pid.to_string()) {
                assert_ne!(theirs, namespace("self").unwrap());
            }
        }
    }
    service.kill().unwrap();
    service.wait().unwrap();
    until("all of it ends", || all.iter().all(|pid| !is_there(*pid)));
}

#[tokio::test]
async fn no_folder_of_the_machine_has_anything_of_a_job_afterwards() {
    let list = |folder: &str| -> BTreeSet<_> {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|it| it.path())
            .filter(|it| it.to_string_lossy().contains("runsc"))
            .collect()
    };
    let folders = ["/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm"];
    let before = folders.map(list);
    let sandbox = sandbox().await;
    sandbox.run(&shell("echo left > /tmp/left")).await.unwrap();
    assert_eq!(folders.map(list), before);
    assert!(!Path::new("/tmp/left").exists());
}

// ---- platforms ----

/// Not a test of the platform, which few test machines have, but of the trial: it answers in bounded time.
#[tokio::test]
async fn kvm_is_used_only_where_a_sandbox_has_come_up_with_it() {
    let began = Instant::now();
    let started = Gvisor::start(GvisorConfig {
        platform: Platform::Kvm,
        trial: Duration::from_secs(5),
        ..config()
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    match started {
        Ok(sandbox) => assert_eq!(sandbox.try_out().await.unwrap().exit_code(), 0),
        Err(error) => {
            assert_eq!(error.code(), "sandbox_refused");
            assert!(error.to_string().contains("platform kvm"), "{error}");
            assert!(hint_for(&error).unwrap().contains("SBX_GVISOR_PLATFORM"));
        }
    }
}

/// The trial of a platform that an older `runsc` does not have says just that.
#[tokio::test]
async fn systrap_works_or_the_program_is_said_to_be_too_old() {
    let started = Gvisor::start(GvisorConfig {
        platform: Platform::Systrap,
        ..config()
    })
    .await;
    if let Err(error) = started {
        assert!(error.to_string().contains("too old"), "{error}");
        assert!(hint_for(&error).unwrap().contains("ptrace"));
        assert_ne!(platform(), Platform::Systrap);
    }
}
