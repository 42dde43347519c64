//! The soak tasks, with rounds that are over at once: what counts as a round, and what is left for who has to repeat it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A checkout that has the soaks alone, and instead of `scripts/kodo` and `scripts/cargo` this script.
fn checkout(script: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let scripts = folder.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    let soak = Path::new(ROOT).join("scripts/soak.bash");
    symlink(soak.canonicalize().unwrap(), scripts.join("soak.bash")).unwrap();
    for name in ["kodo", "cargo"] {
        let program = scripts.join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn task(folder: &Path, name: &str, rounds: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.arg(Path::new(ROOT).join("mise-tasks").join(name))
        .current_dir(folder)
        .env("usage_rounds", rounds)
        .env("usage_seed", "100")
        .stdin(Stdio::null());
    bash
}

/// Exit code, standard output, and which logs are left.
fn soaked(folder: &Path, name: &str, rounds: &str) -> (Option<i32>, String, String) {
    let Output { status, stdout, .. } = task(folder, name, rounds).output().unwrap();
    let kind = name.split('/').nth(1).unwrap();
    let logs = fs::read_dir(folder.join(".data/soak").join(kind));
    let logs = logs.into_iter().flatten().flatten();
    let mut logs: Vec<_> = logs
        .map(|log| log.file_name().into_string().unwrap())
        .collect();
    logs.sort();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        logs.join(" "),
    )
}

/// A crash demo as it should be, changed by `sed`.
fn demo(change: &str) -> String {
    format!(
        "sed '{change}' <<'END'\n\
         crashdemo: kill -9 with marks s1=1 s2=0, workflow PENDING\n\
         crashdemo: app.marks s1=1 s2=1\n\
         DBOS workflow status: SUCCESS\nEND"
    )
}

#[test]
fn every_round_runs_with_its_own_seed_and_only_failed_ones_leave_a_log() {
    let folder = checkout(&format!(
        "echo \"$TEST_SEED $WF_SLEEP_MS\" >>trace\n{}\n[ \"$TEST_SEED\" != 102 ]",
        demo("")
    ));
    let (code, said, logs) = soaked(folder.path(), "wf/crashdemo/soak", "5");
    assert_eq!(
        (code, logs.as_str()),
        (Some(1), "round-003.log"),
        "the log of a failed round is kept: {said}"
    );
    assert_eq!(
        fs::read_to_string(folder.path().join("trace")).unwrap(),
        "100 900\n101 901\n102 902\n103 903\n104 904\n"
    );
    for line in [
        "soak crashdemo: 5 rounds, seeds from 100\n",
        "soak crashdemo: 5 of 5 rounds run: 4 passed, 1 failed\nsoak crashdemo: slowest 0.",
        "soak crashdemo: round 3 failed, seed 102: exit code 1",
        "  again: bin/mise run -f wf:crashdemo:soak 1 --seed 102\n",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
}

#[test]
fn a_round_counts_only_if_the_kill_landed_between_the_effects() {
    for (change, code) in [
        ("", 0),
        ("s/s1=1 s2=0/s1=1 s2=1/", 1),
        ("s/SUCCESS/ERROR/", 1),
        ("s/app.marks s1=1/app.marks s1=2/", 1),
        ("d", 1),
    ] {
        let folder = checkout(&demo(change));
        let (ended, said, logs) = soaked(folder.path(), "wf/crashdemo/soak", "1");
        assert_eq!(ended, Some(code), "{change:?}: {said}");
        assert_eq!(logs.is_empty(), code == 0, "{logs}");
    }
}

#[test]
fn the_results_of_all_test_programs_are_added_up_and_none_is_a_failure() {
    let two = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'\n\
               echo 'test result: ok. 10 passed; 0 failed; 1 ignored; 0 measured'";
    let folder = checkout(two);
    let (code, said, _) = soaked(folder.path(), "test/unit/soak", "2");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(": 12 tests passed, 0 failed\n"), "{said}");
    let failed = checkout(&format!(
        "{two}\ncase \"$*\" in *--no-run) exit 0 ;; esac\n\
         echo 'test result: FAILED. 1 passed; 3 failed; 0 ignored'\nexit 101"
    ));
    let (code, said, _) = soaked(failed.path(), "test/unit/soak", "1");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("FAILED: exit code 101 (13 tests passed, 3 failed)"),
        "{said}"
    );
    let none = checkout("true");
    let (code, said, _) = soaked(none.path(), "test/unit/soak", "1");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAILED: no test ran"), "{said}");
}

#[test]
fn a_soak_of_no_rounds_is_refused() {
    for rounds in ["0", "-1", "many"] {
        let folder = checkout("true");
        let (code, said, _) = soaked(folder.path(), "wf/crashdemo/soak", rounds);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{rounds}");
    }
}

#[test]
fn one_that_is_cut_short_is_no_success_and_its_round_ends_with_it() {
    let folder =
        checkout("echo $$ >pid\ntrap 'echo told >told; exit 1' TERM\nwhile :; do sleep 0.05; done");
    let mut soak = task(folder.path(), "wf/crashdemo/soak", "5");
    let soak = soak.stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let pid = loop {
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap_or_default();
        if pid.ends_with('\n') {
            break pid;
        }
        assert!(Instant::now() < deadline, "the round begins");
        std::thread::sleep(Duration::from_millis(20));
    };
    let soak_pid = rustix::process::Pid::from_child(&soak);
    rustix::process::kill_process(soak_pid, rustix::process::Signal::TERM).unwrap();
    let output = soak.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.ends_with("soak crashdemo: 0 of 5 rounds run, then interrupted: 0 passed, 0 failed\n"),
        "{said}"
    );
    assert!(folder.path().join("told").exists(), "SIGTERM came first");
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}
