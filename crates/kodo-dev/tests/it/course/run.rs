//! Courses of a few lines, run for real: what holds, and which line is named where something does not.

use std::path::Path;
use std::time::{Duration, Instant};

use kodo_dev::course::{BlockReport, Course, Event, Outcome, Report, Skip, Stage, run};

/// Runs a page in a folder of its own.
async fn run_page_in(folder: &Path, page: &str, fast: bool) -> Report {
    let course = Course::parse(page).unwrap();
    let sections = course.select(&[]).unwrap();
    let environment = vec![("COURSE_FOLDER".to_owned(), folder.display().to_string())];
    let stage = Stage::bare(folder.to_path_buf(), environment);
    run(&sections, &stage, fast, &mut |_: Event<'_>| {})
        .await
        .unwrap()
}

async fn run_page(page: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    run_page_in(folder.path(), page, false).await
}

/// The one failure of a page: its line, its reason, its detail.
fn failure(report: &Report) -> (usize, &str, &str) {
    let failures: Vec<_> = report.failures().collect();
    let [only] = failures.as_slice() else {
        panic!("one failure expected: {report:#?}")
    };
    assert!(!report.holds());
    (only.line, &only.reason, &only.detail)
}

fn skips(report: &Report) -> Vec<(usize, Skip)> {
    let skipped = report.skipped();
    skipped
        .map(|(block, skip)| (block.line, skip.clone()))
        .collect()
}

/// Whether a process is there.
fn lives(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

#[tokio::test]
async fn blocks_share_one_shell_and_its_variables_functions_and_folder() {
    let page = "# C\n```bash run\nNAME=kodo\ngreet() { echo \"hello $1\"; }\nmkdir sub\ncd sub\n```\n\
                ## D\n```bash run\ngreet $NAME\nbasename $PWD\n```\n```text output\nhello kodo\nsub\n```\n";
    let report = run_page(page).await;
    assert!(report.holds(), "{report:#?}");
    assert_eq!(report.held(), 2);
}

#[tokio::test]
async fn output_that_is_not_as_the_page_has_it_names_its_line() {
    let page = "# C\n\n```bash run\necho one\necho two >&2\necho three\n```\n\nIt prints:\n\n```text output\none\nTWO\nthree\n```\n";
    let report = run_page(page).await;
    let (line, reason, detail) = failure(&report);
    assert_eq!(line, 13);
    assert!(reason.contains("something else"), "{reason}");
    assert!(
        detail.contains("- TWO") && detail.contains("+ two"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_command_that_fails_names_its_line_and_ends_its_block() {
    let page = "# C\n\n```bash run\necho before\nif false; then :; fi\nfalse || true\n(exit 7)\necho after\n```\n";
    let report = run_page(page).await;
    let (line, reason, detail) = failure(&report);
    assert_eq!(line, 7);
    assert!(reason.contains("exit code 7, not 0"), "{reason}");
    assert_eq!(detail, "before");
}

#[tokio::test]
async fn a_command_that_fails_inside_a_pipeline_or_a_substitution_fails_its_block() {
    for commands in ["false | cat", "X=$(false)", "X=$(false | cat)"] {
        let report = run_page(&format!("# C\n```bash run\n{commands}\n```\n")).await;
        assert_eq!(failure(&report).0, 3, "{commands}");
    }
}

#[tokio::test]
async fn a_failure_that_the_page_announces_holds_and_its_absence_does_not() {
    let report = run_page("# C\n```bash run exit=3\n(exit 3)\n```\n").await;
    assert!(report.holds());
    let report = run_page("# C\n```bash run exit=3\ntrue\n```\n").await;
    let (line, reason, _) = failure(&report);
    assert_eq!(line, 3);
    assert!(reason.contains("exit code 0, not 3"), "{reason}");
}

#[tokio::test]
async fn a_syntax_error_is_a_failure_and_not_the_end_of_the_shell() {
    let report = run_page("# C\n```bash run\nif then\n```\n").await;
    assert!(failure(&report).2.contains("syntax error"), "{report:#?}");
    let page = "# C\n```bash run exit=2\nif then\n```\n## D\n```bash run\ntrue\n```\n";
    assert_eq!(run_page(page).await.held(), 2);
}

#[tokio::test]
async fn a_block_that_hangs_is_ended_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let page =
        "# C\n\n```bash run timeout=1s\necho begun\nsleep 600 & echo $! > child\nsleep 600\n```\n";
    let began = Instant::now();
    let report = run_page_in(folder.path(), page, false).await;
    assert!(began.elapsed() < Duration::from_secs(15));
    let (line, reason, detail) = failure(&report);
    assert_eq!(line, 4);
    assert!(reason.contains("did not end within 1 s"), "{reason}");
    assert_eq!(detail, "begun");
    let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
    assert!(!lives(&child));
}

#[tokio::test]
async fn a_block_that_exits_is_named() {
    let page = "# C\n\n```bash run\necho bye\nexit 0\n```\n```bash run\necho unreached\n```\n";
    let report = run_page(page).await;
    let (line, reason, detail) = failure(&report);
    assert_eq!(line, 4);
    assert!(reason.contains("ended the shell"), "{reason}");
    assert_eq!(detail, "bye");
    assert_eq!(skips(&report), [(8, Skip::After(4))]);
}

#[tokio::test]
async fn after_a_failure_nothing_else_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let page = "# C\n```bash run\nfalse\n```\n# D\n```bash run\ntouch ran\n```\n";
    let report = run_page_in(folder.path(), page, false).await;
    assert_eq!(skips(&report), [(7, Skip::After(3))]);
    assert!(!folder.path().join("ran").exists());
}

#[tokio::test]
async fn what_reads_from_the_terminal_finds_no_input() {
    let report = run_page(
        "# C\n```bash run timeout=10s\ncat\nread X || echo none\n```\n```text output\nnone\n```\n",
    )
    .await;
    assert!(report.holds(), "{report:#?}");
}

#[tokio::test]
async fn a_terminal_runs_beside_the_blocks_and_ends_with_the_course() {
    let folder = tempfile::tempdir().unwrap();
    let page = "# C\n```bash run terminal=A\ntrap 'echo told; exit 0' TERM\necho $$ > pid\necho up\nwhile :; do sleep 0.05; done\n```\n\
                ```text output\nup\n...\ntold\n```\n\
                ```bash run timeout=20s\nuntil [ -s pid ]; do sleep 0.05; done\nkill -0 $(cat pid)\n```\n";
    let report = run_page_in(folder.path(), page, false).await;
    assert!(report.holds(), "{report:#?}");
    assert_eq!(report.held(), 2);
    assert!(!lives(
        &std::fs::read_to_string(folder.path().join("pid")).unwrap()
    ));
}

#[tokio::test]
async fn a_terminal_that_printed_something_else_or_has_ended_names_its_line() {
    let page =
        "# C\n```bash run terminal=A\necho up\nexec sleep 600\n```\n```text output\ndown\n```\n";
    // Nothing waits for it to print, so what it printed by its end may be nothing: both differ on the same line.
    assert_eq!(failure(&run_page(page).await).0, 7);

    let began = Instant::now();
    let report = run_page("# C\n```bash run terminal=A\necho no port\nexit 4\n```\n```bash run timeout=100s\nsleep 90\n```\n").await;
    assert!(began.elapsed() < Duration::from_secs(30));
    let (line, reason, detail) = failure(&report);
    assert_eq!(line, 3);
    assert!(
        reason.contains("terminal A has ended (exit status: 4)"),
        "{reason}"
    );
    assert_eq!(detail, "no port");
}

#[tokio::test]
async fn slow_blocks_and_those_that_have_held_are_left_out_and_said_so() {
    let page = "# C\n```bash run slow\necho x >> slow\n```\n```bash run\necho x >> once\n```\n```bash run once\necho x >> once\n```\n\
                ```bash no-run reason=\"no Docker\"\nexit 1\n```\n";
    let folder = tempfile::tempdir().unwrap();
    let report = run_page_in(folder.path(), page, true).await;
    assert!(report.holds());
    let no_docker = Skip::Illustration("no Docker".to_owned());
    assert_eq!(
        skips(&report),
        [(3, Skip::Slow), (9, Skip::Held(6)), (12, no_docker)]
    );
    assert!(!folder.path().join("slow").exists());
    assert_eq!(
        std::fs::read_to_string(folder.path().join("once")).unwrap(),
        "x\n"
    );
    let report = run_page_in(folder.path(), page, false).await;
    assert_eq!(report.held(), 2);
}

#[tokio::test]
async fn evidence_is_the_line_that_the_page_asks_for() {
    let page = "# C\n```bash run evidence=\"c=\"\necho c=1\necho done\n```\n";
    let report = run_page(page).await;
    let BlockReport {
        evidence, outcome, ..
    } = &report.blocks[0];
    assert_eq!(*outcome, Outcome::Held);
    assert_eq!(evidence.as_deref(), Some("c=1"));
}

#[tokio::test]
async fn what_somebody_has_set_for_a_service_in_use_does_not_reach_the_course() {
    // Nothing in this process is changed: the stage removes these names whatever their value is.
    let report = run_page("# C\n```bash run\necho \"[$API_TOKEN$HOST$RUST_LOG]\"\necho $LC_ALL $NO_COLOR\n```\n```text output\n[]\nC.UTF-8 1\n```\n").await;
    assert!(report.holds(), "{report:#?}");
}

#[tokio::test]
async fn an_interrupted_course_leaves_nothing_running_also_not_in_another_process_group() {
    let folder = tempfile::tempdir().unwrap();
    let page = "# C\n```bash run terminal=A\nsetsid --wait bash -c 'echo $$ > service; exec sleep 600'\n```\n\
                ```bash run\nsetsid --wait bash -c 'echo $$ > deep; exec sleep 600'\n```\n";
    let mut pids = Vec::new();
    {
        let course = run_page_in(folder.path(), page, false);
        tokio::pin!(course);
        for name in ["service", "deep"] {
            loop {
                let pid = std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
                if pid.ends_with('\n') {
                    pids.push(pid);
                    break;
                }
                let patience = tokio::time::timeout(Duration::from_millis(20), &mut course);
                assert!(patience.await.is_err(), "the course waits for its command");
            }
        }
    }
    for pid in pids {
        let killed = Instant::now();
        while lives(&pid) {
            assert!(killed.elapsed() < Duration::from_secs(10), "{pid} lives");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
