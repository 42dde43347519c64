//! What every sandbox that runs something has in common in carrying a workspace from one job to the next.

use std::sync::Arc;

use kodo_contract::{TreeBounds, TreePath};

use super::{run, shell, stopped_by};
use crate::{Ended, JobResult, Reason, Sandbox, Spool, Workspace};

fn empty() -> (tempfile::TempDir, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace {
        tree: kodo_contract::Tree::default(),
        content: Arc::new(Spool::in_folder(folder.path()).unwrap()),
        bounds: TreeBounds::default(),
    };
    (folder, workspace)
}

async fn result_in(sandbox: &dyn Sandbox, workspace: &Workspace, script: &str) -> JobResult {
    let mut job = shell(script);
    job.workspace = Some(workspace.clone());
    run(sandbox, &job).await
}

/// Runs a script in a workspace, which is then as the script left it. Returns what it printed.
async fn within(sandbox: &dyn Sandbox, workspace: &mut Workspace, script: &str) -> String {
    let result = result_in(sandbox, workspace, script).await;
    let (out, err) = (result.stdout.text(), result.stderr.text());
    assert_eq!(result.ended, Ended::Exited(0), "{script}: {out}{err}");
    assert!(result.files.is_empty());
    workspace.tree = result.workspace.unwrap();
    out
}

/// Everything that can be told of a folder, in one order.
const ALL: &str = "stat -c %a .; find . -mindepth 1 -printf '%p|%y|%m|%T@|%l|%n\\n' | sort; find . -type f -perm -400 | sort | xargs -d '\\n' cat";

pub async fn a_workspace_is_found_as_it_was_left(sandbox: &dyn Sandbox) {
    let (_folder, mut workspace) = empty();
    let make = "mkdir -p empty .git/refs closed/deep node_modules/.bin node_modules/tool
        echo 'echo ran' > node_modules/tool/run; chmod 755 node_modules/tool/run
        ln -s ../tool/run node_modules/.bin/tool; ln -s /etc/passwd absolute; ln -s nowhere dangling; ln -s .. up
        echo first > a; ln a b; chmod 640 a; printf x > \"$(printf 'no\\377text')\"; printf y > \"$(printf 'a\\nb')\"
        chmod 750 .; : > none; head -c 300000 /dev/urandom > large; echo gone > gone; mkdir gone.d; echo x > gone.d/x
        echo deep > closed/deep/file; chmod 444 closed/deep/file; chmod 555 closed/deep closed
        touch -d '2001-02-03 04:05:06.123456789' a closed empty; touch -h -d '1969-12-31 23:59:58.5' dangling";
    let left = within(sandbox, &mut workspace, &format!("{make}; {ALL}")).await;
    assert!(left.contains("./a|f|640|981173106.1234567890||2"), "{left}");
    let found = within(sandbox, &mut workspace, ALL).await;
    assert_eq!(found, left);
    // A change by one name is one by the other; what was removed stays away.
    let script = "sh node_modules/.bin/tool; echo second >> b; rm -r gone gone.d; mv large moved";
    assert_eq!(within(sandbox, &mut workspace, script).await, "ran\n");
    let script = "cat a; ls -d gone* large 2>/dev/null; wc -c < moved";
    assert_eq!(
        within(sandbox, &mut workspace, script).await,
        "first\nsecond\n300000\n"
    );
}

pub async fn what_cannot_be_carried_is_told_and_the_rest_is_carried(sandbox: &dyn Sandbox) {
    let (_folder, mut workspace) = empty();
    let result = result_in(
        sandbox,
        &workspace,
        "mkfifo fifo; touch -d '2300-01-01' late; echo x > file; chmod 000 file; mkdir shut; echo y > shut/in; chmod 0 shut .",
    )
    .await;
    assert_eq!(result.ended, Ended::Exited(0));
    let skipped = result.skipped.iter();
    let skipped: Vec<_> = skipped.map(|it| (&*it.name, &*it.kind)).collect();
    assert_eq!(skipped, [("fifo", "fifo"), ("late", "time")]);
    let tree = result.workspace.unwrap();
    let names: Vec<String> = tree.iter().map(|(path, _)| path.text()).collect();
    assert_eq!(names, ["file", "late", "shut", "shut/in"]);
    assert_eq!(tree.root(), Some(0));
    assert_eq!(
        tree.get(&TreePath::from("late")).unwrap().modified,
        i64::MAX
    );
    assert_eq!(tree.get(&TreePath::from("file")).unwrap().mode, 0);
    assert_eq!(tree.get(&TreePath::from("shut")).unwrap().mode, 0);
    // A job begins in its folder however that is closed.
    workspace.tree = tree;
    let open = "chmod 700 \"$PWD\" && chmod 700 shut && cat shut/in";
    assert_eq!(within(sandbox, &mut workspace, open).await, "y\n");
}

pub async fn a_workspace_beyond_its_bounds_is_the_reason_and_is_told(sandbox: &dyn Sandbox) {
    let (_folder, mut workspace) = empty();
    for (bounds, script, said) in [
        ((3, 1 << 20), "touch a b c d", "SBX_WORKSPACE_ENTRIES"),
        (
            (9, 100_000),
            "head -c 100001 /dev/zero > f",
            "SBX_WORKSPACE_MIB",
        ),
        (
            (9, 100_000),
            "dd if=/dev/zero of=holes bs=1 count=1 seek=200000000 2>&1",
            "SBX_WORKSPACE_MIB",
        ),
        (
            (1000, 100_000),
            "mkdir -p \"$(printf 'd/%.0s' $(seq 300))\"",
            "256 are carried",
        ),
    ] {
        workspace.bounds = TreeBounds {
            entries: bounds.0,
            bytes: bounds.1,
        };
        let result = result_in(sandbox, &workspace, script).await;
        stopped_by(&result, Reason::Workspace);
        assert!(result.workspace.is_none());
        let told = result.told.unwrap();
        assert!(told.contains(said), "{told}");
        assert!(
            said.contains("256")
                || told.contains(&bounds.0.to_string())
                || told.contains(&bounds.1.to_string())
        );
    }
}

pub async fn a_workspace_that_the_limits_have_no_room_for_is_refused(sandbox: &dyn Sandbox) {
    let (_folder, mut workspace) = empty();
    within(
        sandbox,
        &mut workspace,
        "head -c 300000 /dev/urandom > f; i=0; while [ $i -lt 30 ]; do : > $i; i=$((i+1)); done",
    )
    .await;
    for (disk_bytes, inodes, said) in [
        (200_000, 1000, "limits.diskBytes"),
        (1 << 20, 20, "limits.inodes"),
    ] {
        let mut job = shell("true");
        job.workspace = Some(workspace.clone());
        (job.limits.disk_bytes, job.limits.inodes) = (disk_bytes, inodes);
        let error = sandbox.run(&job).await.unwrap_err();
        assert_eq!(error.code(), "sandbox_job_invalid");
        assert!(error.to_string().contains(said), "{error}");
    }
}

pub async fn a_file_with_holes_takes_the_room_of_what_it_holds(sandbox: &dyn Sandbox) {
    let (_folder, mut workspace) = empty();
    let make = "dd if=/dev/zero of=holes bs=1 count=1 seek=9000000 2> /dev/null; cp holes again
        printf 'ab' | dd of=holes bs=1 seek=5000001 conv=notrunc 2> /dev/null; sha256sum holes again";
    let made = within(sandbox, &mut workspace, make).await;
    let mut job = shell("sha256sum holes again");
    job.workspace = Some(workspace);
    job.limits.disk_bytes = 10_000_000;
    assert_eq!(run(sandbox, &job).await.stdout.text(), made);
}

pub async fn a_jobs_own_files_come_over_its_workspace(sandbox: &dyn Sandbox) {
    let (_folder, mut workspace) = empty();
    within(
        sandbox,
        &mut workspace,
        "echo old > a; mkdir d; echo in > d/in; ln -s d l; ln a b",
    )
    .await;
    let mut job = shell("cat a b l/new d/in; test -d l")
        .file("a", "new\n")
        .file("l/new", "over a link\n");
    job.workspace = Some(workspace.clone());
    let result = run(sandbox, &job).await;
    assert_eq!(result.stdout.text(), "new\nold\nover a link\nin\n");
    let tree = result.workspace.unwrap();
    assert_eq!(tree.len(), 6);
}
