//! What a job may use at most, and what becomes of one that wants more.

use std::time::Duration;

use super::{run, shell, stopped_by, succeeds};
use crate::{Ended, JobSpec, Limits, Reason, Sandbox};

pub async fn time_that_is_over_ends_the_job_and_keeps_what_it_did(sandbox: &dyn Sandbox) {
    let mut job = shell("echo begun; echo partly > file; sleep 1000");
    // Enough for a shell to begin with its script.
    job.limits.wall = match sandbox.name() {
        "microvm" => Duration::from_secs(10),
        _ => Duration::from_millis(700),
    };
    let result = run(sandbox, &job).await;
    stopped_by(&result, Reason::Timeout);
    assert_eq!(result.exit_code(), 137);
    assert_eq!(result.stdout.text(), "begun\n");
    assert_eq!(result.files[0].content, b"partly\n");
    assert!(result.usage.wall >= job.limits.wall);
}

pub async fn memory_beyond_the_bound_is_the_reason(sandbox: &dyn Sandbox) {
    // Looks for the end of a line that never comes, and keeps all of it.
    let mut job = JobSpec::new(["tail", "/dev/zero"]);
    job.limits.memory_bytes = 32 << 20;
    stopped_by(&run(sandbox, &job).await, Reason::Memory);
}

pub async fn memory_of_several_processes_counts_together(sandbox: &dyn Sandbox) {
    // The second program holds all of it, for want of a reader.
    let hold = "head -c 12000000 /dev/zero | tail -c 12000000 | sleep 2";
    let mut job = shell(&format!("for i in 1 2 3 4 5; do ({hold}) & done; wait"));
    job.limits.memory_bytes = 32 << 20;
    stopped_by(&run(sandbox, &job).await, Reason::Memory);
    job.limits.memory_bytes = 512 << 20;
    assert_eq!(run(sandbox, &job).await.ended, Ended::Exited(0));
}

pub async fn processes_beyond_the_bound_are_the_reason(sandbox: &dyn Sandbox) {
    let script = "i=0; while [ $i -lt 40 ]; do sleep 2 & i=$((i+1)); done; wait";
    let mut job = shell(script);
    job.limits.processes = 10;
    stopped_by(&run(sandbox, &job).await, Reason::Processes);
    job.limits.processes = 64;
    assert_eq!(run(sandbox, &job).await.ended, Ended::Exited(0));
}

pub async fn output_beyond_the_bound_ends_the_job(sandbox: &dyn Sandbox) {
    let mut job = shell("yes & yes >&2");
    job.limits.output_bytes = 1 << 20;
    let result = run(sandbox, &job).await;
    stopped_by(&result, Reason::Output);
    // Either program may have had the machine to itself until then.
    assert!(result.stdout.truncated() || result.stderr.truncated());
}

pub async fn a_long_output_is_kept_at_both_ends_and_blocks_nothing(sandbox: &dyn Sandbox) {
    let mut job = shell("seq 1 300000 & seq 1 300000 >&2; wait");
    job.limits.kept_bytes = 1000;
    let result = run(sandbox, &job).await;
    assert_eq!(result.ended, Ended::Exited(0));
    for stream in [&result.stdout, &result.stderr] {
        assert_eq!(stream.total(), 1_988_895);
        assert!(stream.truncated());
        let text = stream.text();
        assert!(text.starts_with("1\n2\n3\n") && text.ends_with("299999\n300000\n"));
        assert!(text.len() < 1100);
    }
}

pub async fn a_full_disk_is_the_reason(sandbox: &dyn Sandbox) {
    let mut job = shell("head -c 10000000 /dev/zero > large");
    job.limits.disk_bytes = 1 << 20;
    stopped_by(&run(sandbox, &job).await, Reason::Disk);
}

pub async fn a_disk_full_of_several_files_is_the_reason(sandbox: &dyn Sandbox) {
    let script = "for i in 1 2 3 4 5; do head -c 400000 /dev/zero > $i || exit 1; done";
    let mut job = shell(script);
    job.limits.disk_bytes = 1 << 20;
    let result = run(sandbox, &job).await;
    stopped_by(&result, Reason::Disk);
    assert!(result.stderr.text().contains("No space left"));
    // The other folders that it may write to are no way around.
    let mut job = shell("head -c 600000 /dev/zero > /tmp/a && head -c 600000 /dev/zero > b");
    job.limits.disk_bytes = 1 << 20;
    stopped_by(&run(sandbox, &job).await, Reason::Disk);
}

pub async fn too_many_files_are_the_reason(sandbox: &dyn Sandbox) {
    let mut job = shell("i=0; while [ $i -lt 500 ]; do : > f$i || exit 1; i=$((i+1)); done");
    job.limits.inodes = 64;
    let result = run(sandbox, &job).await;
    stopped_by(&result, Reason::Inodes);
    assert!(result.files.len() >= 60, "{}", result.files.len());
    // Nor where nobody else may look.
    job.argv[2] = format!("mkdir shut && cd shut && chmod 300 . && {}", job.argv[2]);
    stopped_by(&run(sandbox, &job).await, Reason::Inodes);
}

pub async fn more_files_than_are_handed_back_are_the_reason(sandbox: &dyn Sandbox) {
    let mut job = shell("for i in 1 2 3; do echo $i > $i; done");
    job.limits.returned_files = 2;
    let result = run(sandbox, &job).await;
    stopped_by(&result, Reason::Returned);
    assert_eq!(result.files.len(), 2);
    let mut job = shell("head -c 5000 /dev/zero > large");
    job.limits.returned_bytes = 4999;
    stopped_by(&run(sandbox, &job).await, Reason::Returned);
    // Many times its own size in nothing but holes.
    let sparse = run(
        sandbox,
        &shell("dd if=/dev/zero of=holes bs=1 count=1 seek=200000000 2>&1"),
    )
    .await;
    stopped_by(&sparse, Reason::Returned);
}

pub async fn folders_of_programs_can_be_written_to_and_count_as_the_jobs_disk(
    sandbox: &dyn Sandbox,
) {
    let folders = "/tmp /var/tmp /run /var/run /run/lock /run/postgresql /dev/shm";
    let script = format!("for it in {folders}; do : > $it/x.$$ || exit 1; rm $it/x.$$; done");
    succeeds(sandbox, &script).await;
    for folder in ["/var/tmp", "/run", "/dev/shm"] {
        let script =
            format!("head -c 600000 /dev/zero > {folder}/a && head -c 600000 /dev/zero > b");
        let mut job = shell(&script);
        job.limits.disk_bytes = 1 << 20;
        stopped_by(&run(sandbox, &job).await, Reason::Disk);
    }
}

pub async fn open_files_are_bounded_for_each_process(sandbox: &dyn Sandbox) {
    let usual = Limits::default().open_files.to_string();
    assert_eq!(succeeds(sandbox, "ulimit -n").await.trim(), usual);
    let mut job = shell("ulimit -n; ulimit -n 200 || echo not raised");
    job.limits.open_files = 100;
    assert!(
        run(sandbox, &job)
            .await
            .stdout
            .text()
            .starts_with("100\nnot raised")
    );
}
