//! The provider `process` is a sandbox like every other: the suite that all of them share.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use kodo_jail::{CgroupPolicy, Helper, Jail, JailConfig};
use kodo_sandbox::{InputFile, JobSpec, Sandbox};

#[path = "shared/ordinary_user.rs"]
mod ordinary_user;

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-jail-probe");

fn jail() -> Jail {
    Jail::new(JailConfig {
        helper: Helper::program(ordinary_user::helper(), vec!["jail-init".into()]),
        ..JailConfig::default()
    })
}

mod with_what_the_machine_gives {
    kodo_sandbox::for_every_sandbox!(super::jail());
    kodo_sandbox::for_sandboxes_that_run!(super::jail());
}

/// The same as an ordinary user, who has no cgroup to put a job in unless somebody gave one away.
#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    ordinary_user::run_this_suite("all_of_it_holds_for_an_ordinary_user");
}

#[tokio::test]
async fn a_cgroup_that_is_required_and_not_there_refuses_the_job() {
    let elsewhere = tempfile::tempdir().unwrap();
    let jail = Jail::new(JailConfig {
        cgroup: CgroupPolicy::Below(elsewhere.path().to_owned()),
        ..JailConfig::default()
    });
    let error = jail.try_out().await.unwrap_err();
    assert_eq!(error.code(), "sandbox_refused");
    assert!(error.to_string().contains("cgroup"), "{error}");
}

/// What needs more than the shell that every sandbox has.
#[tokio::test]
async fn a_process_substitution_has_lines_and_a_terminal_a_name() {
    let script =
        "mapfile -t a < <(seq 3); echo ${#a[@]}; script -qec 'tty; stty -icanon' /dev/null";
    let result = jail().run(&JobSpec::new(["bash", "-c", script])).await;
    let result = result.unwrap();
    let (out, err) = (result.stdout.text(), result.stderr.text());
    // The end of its input follows, which a terminal may show.
    assert!(out.starts_with("3\n/dev/pts/0\r\n"), "{out} {err}");
    assert_eq!(result.exit_code(), 0);
    assert_eq!(result.enforced["terminals"], "of its own");
}

#[tokio::test]
async fn of_etc_a_job_finds_what_programs_read() {
    let script =
        "cat /etc/services /etc/protocols > /dev/null && ls /etc/ssl/certs > /dev/null && date";
    let result = jail()
        .run(&JobSpec::new(["/bin/sh", "-c", script]))
        .await
        .unwrap();
    assert_eq!(result.exit_code(), 0, "{}", result.stderr.text());
}

/// A jail whose helpers are short of descriptors so many times, and then are not.
fn short_jail(folder: &Path, times: usize, patience: Duration) -> Jail {
    let count = folder.join("count");
    fs::write(&count, times.to_string()).unwrap();
    let script = format!(
        "n=$(cat {count}); [ $n = 0 ] || {{ echo $((n - 1)) > {count}; ulimit -Sn 8; }}; exec {} jail-init",
        ordinary_user::helper().display(),
        count = count.display(),
    );
    Jail::new(JailConfig {
        helper: Helper::program("/bin/sh".into(), vec!["-c".into(), script.into()]),
        patience,
        ..JailConfig::default()
    })
}

#[tokio::test]
async fn what_the_kernel_is_short_of_is_waited_for_and_is_no_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let error = short_jail(folder.path(), 1, Duration::ZERO).try_out().await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), "sandbox_shortage", "{error}");
    assert!(error.to_string().contains("Too many open files"), "{error}");
    let jail = short_jail(folder.path(), 3, Duration::from_secs(30));
    assert_eq!(jail.try_out().await.unwrap().exit_code(), 0);
}

#[tokio::test]
async fn files_that_are_more_than_the_jobs_disk_are_no_shortage_of_the_machine() {
    let mut job = JobSpec::new(["true"]).file("large", vec![1; 1 << 20]);
    job.limits.disk_bytes = 64 << 10;
    let error = jail().run(&job).await.unwrap_err();
    assert_eq!(error.code(), "sandbox_job_invalid", "{error}");
}

#[tokio::test]
async fn a_helper_that_cannot_be_executed_is_refused_by_name() {
    let jail = Jail::new(JailConfig {
        helper: Helper::program("/no/such/helper".into(), Vec::new()),
        patience: Duration::from_secs(30),
        ..JailConfig::default()
    });
    let error = jail.try_out().await.unwrap_err();
    assert_eq!(error.code(), "sandbox_refused", "{error}");
    assert!(error.to_string().contains("own-program"), "{error}");
}

#[tokio::test]
async fn a_helper_that_is_none_runs_nothing() {
    let jail = Jail::new(JailConfig {
        helper: Helper::program("/bin/true".into(), Vec::new()),
        ..JailConfig::default()
    });
    let error = jail.try_out().await.unwrap_err();
    assert_eq!(error.code(), "sandbox_unavailable", "{error}");
}

/// Their names alone are more than one message to a helper may have.
#[tokio::test]
async fn a_job_finds_its_files_however_many_they_are() {
    let folder = "f".repeat(240);
    let mut job = JobSpec::new(["/bin/sh", "-c", "ls f* | wc -l"]);
    job.limits.inodes = 1 << 20;
    job.files = (0..20_000)
        .map(|number| InputFile::new(&format!("{folder}/{number:0>240}"), ""))
        .collect();
    let result = jail().run(&job).await.unwrap();
    assert_eq!(result.stdout.text().trim(), "20000");
}
