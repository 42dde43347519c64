//! Helpers that wait for a job: taken by the next one, replaced where they died, gone with the jail and the service.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kodo_jail::{Helper, Jail, JailConfig};
use kodo_sandbox::{Ended, JobSpec, Sandbox};

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-jail-probe");

fn jail(ready: usize) -> Jail {
    Jail::new(JailConfig {
        helper: Helper::program(PROBE.into(), vec!["jail-init".into()]),
        ready,
        ..JailConfig::default()
    })
}

async fn run(jail: &Jail, script: &str) -> String {
    let job = JobSpec::new(["/bin/sh", "-c", script]);
    let result = jail.run(&job).await.unwrap();
    assert_eq!(result.ended, Ended::Exited(0), "{result:?}");
    result.stdout.text()
}

/// The children of this process: its helpers.
fn helpers() -> Vec<i32> {
    let mut pids = Vec::new();
    for thread in fs::read_dir("/proc/self/task").unwrap().flatten() {
        // A thread may end while it is looked at.
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .map(|it| it.parse::<i32>().unwrap()),
        );
    }
    pids
}

/// Whether there is no such process, or one that only waits to be reaped.
fn is_dead(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|it| it.split_whitespace().next());
    state == Some("Z")
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The one helper that waits.
fn spare() -> i32 {
    until("a helper waits", || match helpers().as_slice() {
        [one] => Some(*one),
        _ => None,
    })
}

// One test, whose steps come one after the other: the children of a process are not those of one jail.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_waits_for_the_next_job_and_goes_with_the_jail_and_with_the_service() {
    let none = jail(0);
    run(&none, ":").await;
    assert!(
        helpers().is_empty(),
        "nothing waits where nothing was asked for"
    );

    let jail = jail(1);
    assert!(helpers().is_empty(), "nothing waits before the first job");
    run(&jail, ":").await;
    let first = spare();
    assert_eq!(run(&jail, "echo one").await, "one\n");
    let second = until("another one waits", || {
        let other = helpers().into_iter().find(|it| *it != first);
        other.filter(|_| helpers().len() == 1)
    });

    // One that died while it waited is nobody's job.
    let pid = rustix::process::Pid::from_raw(second).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("it is dead", || is_dead(second).then_some(()));
    assert_eq!(run(&jail, "echo two").await, "two\n");
    spare();

    // Jobs at the same time do not wait for one another, and leave one helper behind.
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let jail = jail.clone();
        jobs.spawn(async move { run(&jail, "echo three").await });
    }
    assert_eq!(jobs.join_all().await, ["three\n"; 4]);
    spare();

    drop(jail);
    until("no helper is left", || helpers().is_empty().then_some(()));

    a_helper_that_waits_dies_with_the_service();
}

fn a_helper_that_waits_dies_with_the_service() {
    let mut service = Command::new(PROBE)
        .args(["hold", "spare"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(service.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let helper = line.trim().parse::<i32>().unwrap();
    assert!(!is_dead(helper));
    service.kill().unwrap();
    service.wait().unwrap();
    until("the helper is gone", || is_dead(helper).then_some(()));
}
