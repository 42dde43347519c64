//! What every sandbox has in common, as tests that each provider runs against itself.
//!
//! [`for_every_sandbox!`](crate::for_every_sandbox) holds for all, [`for_sandboxes_that_run!`](crate::for_sandboxes_that_run)
//! for those that run something. The jobs use a shell and what POSIX puts beside it.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bounds;
mod files;
mod workspaces;

use std::time::{Duration, Instant};

use kodo_contract::{ToolCall, encode};
use serde_json::json;

use crate::{
    Ended, Grant, Job, JobResult, JobSpec, Limits, Reason, Sandbox, SandboxError, SecretFolder,
    result_of,
};
pub use bounds::*;
pub use files::*;
pub use workspaces::*;

/// Long enough for any job here on a machine that is busy, short enough to tell it from a job that hangs.
const PROMPTLY: Duration = Duration::from_secs(20);
/// The same where a job may have to wait for a machine that boots by software emulation, beside others that do. One
/// that hangs is told by its reason there: the usual limit on time is shorter.
const BOOTED: Duration = Duration::from_secs(240);

/// Declares a test for each of the named behaviours, against the sandbox that the expression makes.
#[macro_export]
macro_rules! conformance_tests {
    ($sandbox:expr => $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::conformance::$name(&$sandbox).await;
            }
        )*
    };
}

/// Tests for every sandbox, the mock included.
#[macro_export]
macro_rules! for_every_sandbox {
    ($sandbox:expr) => {
        $crate::conformance_tests! { $sandbox =>
            a_result_names_its_provider_and_passes_the_gate
            a_job_that_is_none_is_refused
        }
    };
}

/// Tests for every sandbox that runs something.
#[macro_export]
macro_rules! for_sandboxes_that_run {
    ($sandbox:expr) => {
        $crate::conformance_tests! { $sandbox =>
            a_tool_that_it_does_not_have_is_refused
            a_network_is_refused_where_none_is_given
            an_exit_code_is_the_programs_own
            a_program_that_a_signal_ended_says_which
            a_program_that_is_not_there_is_127_and_one_that_cannot_be_run_126
            the_two_streams_are_apart
            output_that_is_no_text_is_made_text
            standard_input_is_empty
            streams_and_descriptors_have_names
            folders_of_programs_can_be_written_to_and_count_as_the_jobs_disk
            open_files_are_bounded_for_each_process
            files_are_there_before_the_program_is
            files_that_are_new_or_changed_come_back
            only_regular_files_come_back
            the_environment_is_what_was_given_and_no_more
            the_working_folder_is_the_one_that_was_asked_for
            a_working_folder_that_is_not_there_is_refused
            time_that_is_over_ends_the_job_and_keeps_what_it_did
            a_job_that_ignores_signals_ends_in_time
            a_job_that_stops_itself_ends_in_time
            memory_beyond_the_bound_is_the_reason
            memory_of_several_processes_counts_together
            processes_beyond_the_bound_are_the_reason
            output_beyond_the_bound_ends_the_job
            a_long_output_is_kept_at_both_ends_and_blocks_nothing
            a_full_disk_is_the_reason
            a_disk_full_of_several_files_is_the_reason
            too_many_files_are_the_reason
            more_files_than_are_handed_back_are_the_reason
            what_runs_on_in_the_background_does_not_hold_the_job
            a_process_that_left_its_session_does_not_hold_the_job
            jobs_at_the_same_time_know_nothing_of_each_other
            each_job_finds_an_empty_folder
            what_was_used_is_measured
            a_job_that_nobody_waits_for_is_ended
            a_workspace_is_found_as_it_was_left
            what_cannot_be_carried_is_told_and_the_rest_is_carried
            a_workspace_beyond_its_bounds_is_the_reason_and_is_told
            a_workspace_that_the_limits_have_no_room_for_is_refused
            a_file_with_holes_takes_the_room_of_what_it_holds
            a_jobs_own_files_come_over_its_workspace
        }
    };
}

fn shell(script: &str) -> JobSpec {
    JobSpec::new(["/bin/sh", "-c", script])
}

async fn run(sandbox: &dyn Sandbox, job: &JobSpec) -> JobResult {
    let began = Instant::now();
    let result = sandbox.run(job).await;
    let took = began.elapsed();
    let patience = match sandbox.name() {
        "microvm" => BOOTED,
        _ => PROMPTLY,
    };
    assert!(took < patience, "{job:?} took {took:?}");
    let result = result.unwrap_or_else(|error| panic!("{:?}: {error}", job.argv));
    // Whatever it is, it can be stored.
    encode(&result_of(&result)).unwrap();
    assert_eq!(result.limits, job.limits);
    result
}

async fn succeeds(sandbox: &dyn Sandbox, script: &str) -> String {
    let result = run(sandbox, &shell(script)).await;
    let (out, err) = (result.stdout.text(), result.stderr.text());
    assert_eq!(result.ended, Ended::Exited(0), "{script}: {out}{err}");
    out
}

fn reason(result: &JobResult) -> Option<Reason> {
    match result.ended {
        Ended::Stopped { reason, .. } => {
            assert_ne!(result.exit_code(), 0);
            Some(reason)
        }
        _ => None,
    }
}

#[track_caller]
fn stopped_by(result: &JobResult, expected: Reason) {
    let (out, err) = (result.stdout.text(), result.stderr.text());
    let text: String = out.chars().chain(err.chars()).take(500).collect();
    assert_eq!(reason(result), Some(expected), "{:?}: {text}", result.ended);
}

pub async fn a_result_names_its_provider_and_passes_the_gate(sandbox: &dyn Sandbox) {
    let result = run(sandbox, &shell("echo hello")).await;
    assert_eq!(result.provider, sandbox.name());
    let tool = result_of(&result);
    assert_eq!(
        (tool.provider.as_str(), tool.exit_code),
        (sandbox.name(), 0)
    );
    assert_eq!(tool.reason, None);
    assert!(tool.report.is_some());
}

pub async fn a_job_that_is_none_is_refused(sandbox: &dyn Sandbox) {
    for job in [
        JobSpec::new(Vec::<String>::new()),
        JobSpec::new(["a\0b"]),
        JobSpec::new(["true"]).file("../out", ""),
    ] {
        let error = sandbox.run(&job).await.unwrap_err();
        assert_eq!(error.code(), "sandbox_job_invalid", "{job:?}");
    }
}

pub async fn a_tool_that_it_does_not_have_is_refused(sandbox: &dyn Sandbox) {
    let execute = async |name: &str, args: serde_json::Value| {
        let call = ToolCall {
            name: name.to_owned(),
            args: args.as_object().unwrap().clone(),
            ..ToolCall::default()
        };
        let job = Job {
            call: &call,
            idempotency_key: "k",
            seed: 1,
            workspace: None,
            files: &[],
            secrets: Grant {
                folder: &SecretFolder::default(),
                names: &[],
            },
            most: &Limits::most(),
        };
        sandbox.execute(&job).await
    };
    let error = execute("repo.inspect", json!({"argv": ["true"]})).await;
    assert_eq!(error.unwrap_err().code(), "tool_not_supported");
    let error = execute("exec", json!({"command": "true"})).await;
    assert_eq!(error.unwrap_err().code(), "tool_args_invalid");
    let outcome = execute("exec", json!({"shell": "exit 3"})).await.unwrap();
    assert_eq!(outcome.result.exit_code, 3);
}

pub async fn a_network_is_refused_where_none_is_given(sandbox: &dyn Sandbox) {
    let mut job = shell("true");
    job.network = true;
    match sandbox.run(&job).await.unwrap_err() {
        SandboxError::Refused { mechanism, .. } => assert_eq!(mechanism, "network"),
        other => panic!("{other}"),
    }
}

pub async fn an_exit_code_is_the_programs_own(sandbox: &dyn Sandbox) {
    for code in [0, 1, 3, 255] {
        let result = run(sandbox, &shell(&format!("exit {code}"))).await;
        assert_eq!(result.ended, Ended::Exited(code));
        assert_eq!(result.exit_code(), code);
    }
}

pub async fn a_program_that_a_signal_ended_says_which(sandbox: &dyn Sandbox) {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        let result = run(sandbox, &shell(&format!("kill -{name} $$"))).await;
        assert_eq!(result.ended, Ended::Signaled(number));
        assert_eq!(result.ended.reason(), Some("signal"));
        assert_eq!(result.exit_code(), 128 + number);
    }
}

pub async fn a_program_that_is_not_there_is_127_and_one_that_cannot_be_run_126(
    sandbox: &dyn Sandbox,
) {
    for name in ["no-such-program", "/no/such/program", "./none"] {
        let result = run(sandbox, &JobSpec::new([name])).await;
        assert_eq!(result.exit_code(), 127, "{name}");
        assert!(result.stderr.text().contains(name));
    }
    let plain = JobSpec::new(["./plain"]).file("plain", "#!/bin/sh\nexit 0\n");
    assert_eq!(run(sandbox, &plain).await.exit_code(), 126);
    let found = run(sandbox, &JobSpec::new(["true"])).await;
    assert_eq!(found.exit_code(), 0, "a name alone is looked for in PATH");
}

pub async fn the_two_streams_are_apart(sandbox: &dyn Sandbox) {
    let result = run(sandbox, &shell("echo out; echo err >&2; printf end")).await;
    assert_eq!(result.stdout.text(), "out\nend");
    assert_eq!(result.stderr.text(), "err\n");
}

pub async fn output_that_is_no_text_is_made_text(sandbox: &dyn Sandbox) {
    let result = run(sandbox, &shell(r"printf 'a\000b\377c'")).await;
    assert_eq!(result.stdout.bytes(), b"a\0b\xffc");
    assert_eq!(result.stdout.text(), "a\u{fffd}b\u{fffd}c");
}

pub async fn standard_input_is_empty(sandbox: &dyn Sandbox) {
    assert_eq!(succeeds(sandbox, "wc -c").await.trim(), "0");
}

pub async fn streams_and_descriptors_have_names(sandbox: &dyn Sandbox) {
    let script =
        "echo in | cat /dev/stdin; exec 5< named; cat /dev/fd/5; echo piped | cat /dev/fd/0";
    let result = run(sandbox, &shell(script).file("named", "five\n")).await;
    assert_eq!(result.stdout.text(), "in\nfive\npiped\n");
    let result = run(
        sandbox,
        &shell("echo out > /dev/stdout; echo err > /dev/stderr"),
    )
    .await;
    if sandbox.name() == "gvisor" {
        // Its kernel opens none of the machine's pipes by name.
        return;
    }
    assert_eq!(result.stdout.text(), "out\n");
    assert_eq!(result.stderr.text(), "err\n");
}

pub async fn the_environment_is_what_was_given_and_no_more(sandbox: &dyn Sandbox) {
    let mut job = JobSpec::new(["env"]);
    job.env.insert("GIVEN".to_owned(), "a b=c".to_owned());
    job.env.insert("LANG".to_owned(), "C".to_owned());
    let result = run(sandbox, &job).await;
    let text = result.stdout.text();
    let mut names: Vec<_> = text.lines().filter_map(|it| it.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["GIVEN", "HOME", "LANG", "PATH", "TMPDIR"]);
    assert!(text.contains("GIVEN=a b=c\n") && text.contains("LANG=C\n"));
}

pub async fn the_working_folder_is_the_one_that_was_asked_for(sandbox: &dyn Sandbox) {
    let mut job = shell("cat here; echo made > there").file("in/side/here", "found\n");
    job.cwd = "in/side".to_owned();
    let result = run(sandbox, &job).await;
    assert_eq!(result.stdout.text(), "found\n");
    assert_eq!(result.files[0].name, "in/side/there");
}

pub async fn a_working_folder_that_is_not_there_is_refused(sandbox: &dyn Sandbox) {
    let mut job = shell("true");
    job.cwd = "nowhere".to_owned();
    let error = sandbox.run(&job).await.unwrap_err();
    assert_eq!(error.code(), "sandbox_job_invalid", "{error}");
}

pub async fn a_job_that_ignores_signals_ends_in_time(sandbox: &dyn Sandbox) {
    let mut job =
        shell("trap '' TERM INT HUP QUIT; (trap '' TERM; while :; do sleep 1; done) & wait");
    job.limits.wall = Duration::from_millis(500);
    stopped_by(&run(sandbox, &job).await, Reason::Timeout);
}

pub async fn a_job_that_stops_itself_ends_in_time(sandbox: &dyn Sandbox) {
    // Its own process, and the one that guards it, which no signal from inside reaches.
    let mut job = shell("kill -STOP 1; kill -KILL 1; kill -STOP $$; echo not reached");
    job.limits.wall = Duration::from_millis(500);
    let result = run(sandbox, &job).await;
    stopped_by(&result, Reason::Timeout);
    assert_eq!(result.stdout.text(), "");
}

pub async fn what_runs_on_in_the_background_does_not_hold_the_job(sandbox: &dyn Sandbox) {
    let out = succeeds(sandbox, "sleep 1000 & echo over").await;
    assert_eq!(out, "over\n");
}

pub async fn a_process_that_left_its_session_does_not_hold_the_job(sandbox: &dyn Sandbox) {
    let script = "(setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; echo over";
    assert_eq!(succeeds(sandbox, script).await, "over\n");
}

pub async fn jobs_at_the_same_time_know_nothing_of_each_other(sandbox: &dyn Sandbox) {
    let script = |name: &str| {
        format!(
            "echo {name} > {name}; echo {name} > /tmp/{name}; sleep 0.5; ls -A . /tmp; ls -d /proc/[0-9]* | wc -l"
        )
    };
    let (first, second, third) = (script("first"), script("second"), script("third"));
    let (first, second, third) = tokio::join!(
        succeeds(sandbox, &first),
        succeeds(sandbox, &second),
        succeeds(sandbox, &third)
    );
    for (name, seen) in [("first", first), ("second", second), ("third", third)] {
        let expected = format!(".:\n{name}\n\n/tmp:\n{name}\n");
        assert!(seen.starts_with(&expected), "{seen}");
    }
}

pub async fn each_job_finds_an_empty_folder(sandbox: &dyn Sandbox) {
    let script =
        "ls -A . /tmp /dev/shm; echo left > left; echo left > /tmp/left; echo left > /dev/shm/left";
    for _ in 0..2 {
        assert_eq!(
            succeeds(sandbox, script).await,
            ".:\n\n/dev/shm:\n\n/tmp:\n"
        );
    }
}

pub async fn what_was_used_is_measured(sandbox: &dyn Sandbox) {
    let result = run(
        sandbox,
        &shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 100000 /dev/zero > f"),
    )
    .await;
    let usage = result.usage;
    assert!(usage.cpu_user > Duration::from_millis(10), "{usage:?}");
    assert!(usage.wall >= usage.cpu_user / 4, "{usage:?}");
    assert!(usage.max_rss_bytes > 100_000, "{usage:?}");
    assert!(usage.disk_bytes >= 100_000, "{usage:?}");
    assert!(!result.enforced.is_empty());
}

pub async fn a_job_that_nobody_waits_for_is_ended(sandbox: &dyn Sandbox) {
    let mut job = shell("sleep 1000");
    job.limits.wall = Duration::from_secs(3600);
    // Giving up is no cancellation of anything but the job: the next one runs.
    let given_up = tokio::time::timeout(Duration::from_millis(300), sandbox.run(&job)).await;
    assert!(given_up.is_err());
    assert_eq!(succeeds(sandbox, "echo next").await, "next\n");
}
